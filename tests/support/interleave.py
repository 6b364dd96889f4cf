"""Concurrency in our hands: every step of every actor waits at a gate, and one gate at a time is opened.

Actors are told apart by a context variable, which the tasks that they start inherit. Time stands still but for what
the scheduler lets pass, on the event loop too: so a seed always leads to the same order of the same steps.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

ACTOR: Final[ContextVar[str]] = ContextVar("actor")
"""`replica/name`; whoever has none passes every gate at once."""
EVERYTHING: Final = frozenset({"*"})
"""The keys of a step that commutes with no other."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is told to it; deadlines and sleeps go by that time."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def idle(self) -> bool:
        """Whether nothing but the caller is ready to run."""
        return not self._ready  # type: ignore[attr-defined]


@dataclass(eq=False, slots=True)
class Gate:
    """A step that waits to be let through: whose, which, and what it touches."""

    actor: str
    what: str
    keys: frozenset[str]
    ready: Callable[[], bool]
    opened: asyncio.Future[None]

    @property
    def name(self) -> str:
        return f"{self.actor} {self.what}"

    @property
    def replica(self) -> str:
        return self.actor.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Event:
    """What took place, as seen from outside of the service. *ids* are the sessions named in the call."""

    at: int
    actor: str
    what: str
    ids: tuple[str, ...] = ()
    answer: Any = None
    when: float = 0.0


@dataclass
class Steps:
    """The gates of one round, and the history of what went through them."""

    loop: VirtualLoop
    twice: bool = True
    """Whether answers wait at gates as well as calls."""
    open: bool = True
    """Whether everybody passes: while a round is set up and taken down."""
    closed: bool = False
    """Whether nobody passes ever again."""
    dead: set[str] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)
    history: list[Event] = field(default_factory=list)
    released: int = 0
    _waiting: list[Gate] = field(default_factory=list)
    _busy: int = 0
    _landed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return self.released

    async def gate(
        self, what: str, keys: frozenset[str] = EVERYTHING, *, ready: Callable[[], bool] = lambda: True
    ) -> None:
        """Wait to be let through. A replica that has crashed waits for ever: nothing of it runs on."""
        actor = ACTOR.get("")
        if not actor:
            return
        if self.closed:
            raise asyncio.CancelledError
        if self.open and actor.partition("/")[0] not in self.dead:
            return
        gate = Gate(actor, what, keys, ready, self.loop.create_future())
        self._waiting.append(gate)
        try:
            await gate.opened
        finally:
            self._waiting.remove(gate)

    async def answered(self, what: str, keys: frozenset[str]) -> None:
        """Wait at the gate of an answer, where answers have one."""
        if self.twice:
            await self.gate(f"{what} answers", keys)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Tell that something is really under way, outside of this loop."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._landed.set()

    def happened(self, what: str, ids: tuple[str, ...] = (), answer: Any = None) -> None:
        """Write into the history what took place just now."""
        self.history.append(Event(len(self.history), ACTOR.get(""), what, ids, answer, self.loop.now))

    async def quiet(self) -> None:
        """Wait until all that runs has come to a gate, a timer or its end."""
        while True:
            if self._busy:
                self._landed.clear()
                await self._landed.wait()
            await asyncio.sleep(0)
            if not self._busy and self.loop.idle():
                return

    def waiting(self) -> list[Gate]:
        """Return the gates that may be opened now, in an order that doesn't depend on chance."""
        return sorted(
            (gate for gate in self._waiting if gate.replica not in self.dead and gate.ready()),
            key=lambda gate: gate.name,
        )

    def release(self, gate: Gate) -> None:
        """Let one step through."""
        self.released += 1
        self.trace.append(gate.name)
        gate.opened.set_result(None)

    def release_all(self) -> None:
        """From now on everybody passes but the dead."""
        self.open = True
        for gate in self._waiting:
            if gate.replica not in self.dead and not gate.opened.done():
                gate.opened.set_result(None)

    def crash(self, replica: str) -> None:
        """Nothing of *replica* runs on, as after SIGKILL."""
        self.trace.append(f"— {replica} crashes")
        self.dead.add(replica)
