"""Hears within a second that a session has ended: asks again and again about those that somebody follows."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final

from chatkit_sessions.session import Refused

log = logging.getLogger(__name__)

EVERY: Final = 0.3
"""Seconds between two questions, whether or not the first is answered yet: a cancel may come just after it was put."""
PATIENCE: Final = 0.6
"""Seconds for an answer. Together they are less than the second that is promised."""
UNCONFIRMED: Final = 5.0
"""Seconds without any answer after which whoever is followed counts as ended: in doubt, no."""
AT_ONCE: Final = 500
"""Sessions in one question, at most."""

Ended = Callable[[Collection[str]], Coroutine[Any, Any, set[str]]]


class Watch:
    """Asks *ended* about the sessions that are followed, while there are any."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._followers: dict[str, set[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._confirmed = 0.0

    def follow(self, identity: str, on_end: Callable[[], None]) -> Callable[[], None]:
        """Have *on_end* called once when the session has ended; return what stops following."""
        self._followers.setdefault(identity, set()).add(on_end)
        if self._task is None or self._task.done():
            self._confirmed = asyncio.get_running_loop().time()
            self._task = asyncio.create_task(self._run())
        return lambda: self._unfollow(identity, on_end)

    @property
    def confirmed(self) -> float:
        """When the last question that was answered was put, by the loop's clock."""
        return self._confirmed

    async def aclose(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _unfollow(self, identity: str, on_end: Callable[[], None]) -> None:
        followers = self._followers.get(identity)
        if followers is not None:
            followers.discard(on_end)
            if not followers:
                del self._followers[identity]

    async def _run(self) -> None:
        turns: deque[asyncio.Task[None]] = deque()
        try:
            while self._followers:
                await asyncio.sleep(EVERY)
                turns.append(asyncio.create_task(self._turn()))
                while turns and turns[0].done():
                    turns.popleft().result()
        finally:
            for turn in turns:
                turn.cancel()
            # However it ends, nobody goes on unwatched.
            self._end(list(self._followers))

    async def _turn(self) -> None:
        asked = asyncio.get_running_loop().time()
        followed = list(self._followers)
        try:
            async with asyncio.timeout(PATIENCE):
                parts = [followed[at : at + AT_ONCE] for at in range(0, len(followed), AT_ONCE)]
                gone = set().union(*await asyncio.gather(*(self._ended(part) for part in parts)))
        except (Refused, TimeoutError):
            silence = asyncio.get_running_loop().time() - self._confirmed
            if silence < UNCONFIRMED:
                return
            log.warning("sessions can't be verified for %.0f s: whatever is streamed to them ends", silence)
            gone = set(followed)
        except Exception:
            self._end(list(self._followers))  # at once: `_run` learns of it later
            raise
        else:
            self._confirmed = max(self._confirmed, asked)
        self._end(gone)

    def _end(self, gone: Iterable[str]) -> None:
        for identity in gone:
            for on_end in self._followers.pop(identity, ()):
                on_end()
