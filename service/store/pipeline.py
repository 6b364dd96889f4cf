"""Scripts of many callers in one pipeline: what comes while Redis is being asked goes along with the next.

A round trip costs this process several times what a script costs Redis; under load it is shared.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

from service.store.connect import RedisGuard
from service.store.lane import Lane, packed

LANES: Final = 2
"""Pipelines under way at once: with one, every caller would wait for the round trip before its own."""
MOST: Final = 64
"""Callers in one pipeline, so that the first needn't wait for hundreds."""
SPREAD: Final = 0.25
"""Of a deadline: how much later than the first of a pipeline its last may have come. They have one time in common.
So much longer than its deadline somebody may wait.
"""


class Call(NamedTuple):
    """A script with its keys, all of one slot, and its arguments."""

    script: AsyncScript
    keys: Sequence[str]
    args: Sequence[str | int]

    def words(self) -> tuple[str | int, ...]:
        """Return the command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


class _Caller(NamedTuple):
    calls: Sequence[Call]
    sent: Sequence[bytes]
    answers: asyncio.Future[list[Any]]
    since: float


class Pipeline:
    """Runs scripts. A Cluster's go to their nodes each by itself."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._guard = guard
        self._waiting: deque[_Caller] = deque()
        # A Cluster's commands go to several nodes: its client sends them one after the other, each caller's by itself.
        self._apart = type(redis) is not Redis
        self._idle = [] if self._apart else [Lane(redis) for _ in range(LANES)]
        self._tasks: set[asyncio.Task[None]] = set()

    async def one(self, script: AsyncScript, keys: Sequence[str], args: Sequence[str | int] = ()) -> Any:
        """Run one script and return its answer; raise `StoreUnavailable`."""
        (answer,) = await self.run(Call(script, keys, args))
        return answer

    async def run(self, *calls: Call) -> list[Any]:
        """Run the scripts one after the other and return their answers; raise `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        if self._apart:
            answers = await self._ask(self._in_turn(calls), since)
        else:
            sent = [packed(call.words()) for call in calls]  # here: what can't be sent is nobody else's trouble
            if not self._idle:
                caller = _Caller(calls, sent, loop.create_future(), since)
                self._waiting.append(caller)
                return await caller.answers
            # Nobody waits, so there is nobody to share with, and no task is needed to serve us.
            lane = self._idle.pop()
            try:
                answers = await self._ask(lane.execute(sent, []), since)
            finally:
                self._hand_over(lane)
        if not [answer for answer in answers if isinstance(answer, Exception)]:
            return answers
        try:
            return await self._mended(calls, answers, since)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._guard.refusal(error) from error

    async def _ask(self, asking: Coroutine[Any, Any, list[Any]], since: float) -> list[Any]:
        try:
            return await self._exchange(asking, since, since)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._guard.refusal(error) from error

    def _hand_over(self, lane: Lane) -> None:
        """Let the lane serve those who came meanwhile."""
        while self._waiting and self._waiting[0].answers.done():  # has left
            self._waiting.popleft()
        if self._waiting:
            self._spawn(self._drain(lane), then=partial(self._hand_over, lane))
        else:
            self._idle.append(lane)

    async def _drain(self, lane: Lane) -> None:
        while callers := self._next():
            await self._serve(lane, callers)

    def _spawn(self, work: Coroutine[Any, Any, None], *, then: Callable[[], None] = lambda: None) -> None:
        """Do it in a task; *then* is called at its end, also where it was cancelled before it began."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            then()

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _next(self) -> list[_Caller]:
        """Take those who are served together; refuse whose time is over. Who has left isn't asked for any more."""
        deadline, found = self._guard.deadline, list[_Caller]()
        now = asyncio.get_running_loop().time()
        while self._waiting and len(found) < MOST:
            caller = self._waiting[0]
            if found and caller.since > found[0].since + SPREAD * deadline:
                break
            self._waiting.popleft()
            if caller.since + deadline <= now:
                self._fail([caller], TimeoutError())
            elif not caller.answers.done():
                found.append(caller)
        return found

    async def _serve(self, lane: Lane, callers: Sequence[_Caller]) -> None:
        """Tell each caller something, whatever happens: nobody else would."""
        sent, answers = [each for caller in callers for each in caller.sent], list[Any]()
        try:
            # As long as the last still waits: the first would cut short whoever came later.
            await self._exchange(lane.execute(sent, answers), callers[0].since, callers[-1].since)
        except asyncio.CancelledError:
            for caller in callers:
                caller.answers.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (a defect is each caller's to tell; the next ones go on)
            self._fail(self._tell(callers, answers), error)
        else:
            self._tell(callers, answers)

    def _tell(self, callers: Sequence[_Caller], answers: Sequence[Any]) -> Sequence[_Caller]:
        """Give each caller the answers to its own calls; return those, the last ones, who didn't get all of theirs."""
        taken = 0
        for index, caller in enumerate(callers):
            own = list(answers[taken : taken + len(caller.calls)])
            if len(own) < len(caller.calls):
                return callers[index:]
            taken += len(own)
            if caller.answers.done():  # has left
                continue
            if [answer for answer in own if isinstance(answer, Exception)]:
                # Apart: the lane is others' meanwhile, and need not wait for the pool.
                self._spawn(self._tell_mended(caller, own))
            else:
                caller.answers.set_result(own)
        return ()

    async def _exchange(self, asking: Coroutine[Any, Any, list[Any]], first: float, last: float) -> list[Any]:
        """Wait for the answers; *first* and *last* are when those who asked came."""
        try:
            # Some time in any case: to be given up, a lane must connect anew.
            async with asyncio.timeout(max(self._left(last), SPREAD * self._guard.deadline)):
                return await asking
        finally:
            self._guard.count(asyncio.get_running_loop().time() - first)

    async def _in_turn(self, calls: Sequence[Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call.words())
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            return answers

    def _left(self, since: float) -> float:
        """Return how long somebody still waits, the wait for a turn included."""
        return self._guard.deadline - (asyncio.get_running_loop().time() - since)

    async def _mended(self, calls: Sequence[Call], answers: list[Any], since: float) -> list[Any]:
        """Run what a Redis that has restarted did not know, and all after it; raise any other error.

        The order is what callers rely on, and all but the first may be repeated.
        """
        known = next((index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)), None)
        if known is not None:
            async with asyncio.timeout(self._left(since)):
                answers = answers[:known] + [await call.script(call.keys, call.args) for call in calls[known:]]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _tell_mended(self, caller: _Caller, answers: list[Any]) -> None:
        try:
            done = await self._mended(caller.calls, answers, caller.since)
        except asyncio.CancelledError:
            caller.answers.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (the caller's to tell; the others have theirs)
            self._fail([caller], error)
        else:
            if not caller.answers.done():
                caller.answers.set_result(done)

    def _fail(self, callers: Sequence[_Caller], error: Exception) -> None:
        for caller in callers:
            if not caller.answers.done():
                known = isinstance(error, RedisError | OSError | TimeoutError)
                caller.answers.set_exception(self._guard.refusal(error) if known else error)
