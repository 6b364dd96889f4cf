"""Scripts of many callers in one pipeline: what comes while Redis is being asked goes along with the next.

A round trip costs this process several times what a script costs Redis; under load it is shared.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

from service.store.connect import RedisGuard
from service.store.lane import Lane

LANES: Final = 2
"""Pipelines under way at once: with one, every caller would wait for the round trip before its own."""
MOST: Final = 64
"""Callers in one pipeline, so that the first needn't wait for hundreds."""


class Call(NamedTuple):
    """A script with its keys, all of one slot, and its arguments."""

    script: AsyncScript
    keys: Sequence[str]
    args: Sequence[str | int]


class _Caller(NamedTuple):
    calls: Sequence[Call]
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
        self._lanes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, *calls: Call) -> list[Any]:
        """Run the scripts one after the other and return their answers; raise `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        caller = _Caller(calls, loop.create_future(), loop.time())
        self._waiting.append(caller)
        if self._lanes < LANES or self._apart:
            self._lanes += 1
            task = loop.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await caller.answers

    async def _drain(self) -> None:
        try:
            while self._waiting:
                most = 1 if self._apart else MOST
                await self._serve([self._waiting.popleft() for _ in range(min(most, len(self._waiting)))])
        finally:
            # At once, not when the task's end is told: who comes in between would wait for a lane that is no more.
            self._lanes -= 1

    async def _serve(self, callers: Sequence[_Caller]) -> None:
        try:
            await self._ask(callers)
        except asyncio.CancelledError:
            for caller in callers:
                caller.answers.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (a defect is each caller's to tell; the next ones go on)
            for caller in callers:
                _tell(caller, error)

    async def _ask(self, callers: Sequence[_Caller]) -> None:
        started = asyncio.get_running_loop().time()
        waited = started - callers[0].since
        try:
            # Nobody waits much longer than the deadline, the wait for a turn included; and nobody gets no time at all.
            async with asyncio.timeout(max(self._guard.deadline - waited, self._guard.deadline / 4)):
                answers = await self._execute([call for caller in callers for call in caller.calls])
        except (RedisError, OSError, TimeoutError) as error:
            # Those whose time is over go too: each would wait for another pipeline that comes to nothing.
            now = asyncio.get_running_loop().time()
            over = [caller for caller in self._waiting if caller.since + self._guard.deadline <= now]
            for _ in over:
                self._waiting.popleft()  # they stand in front: who came first is over first
            for caller in (*callers, *over):
                _tell(caller, self._guard.refusal(error))
            return
        finally:
            self._guard.count(asyncio.get_running_loop().time() - started)
        taken, late = 0, []
        for caller in callers:
            own = answers[taken : taken + len(caller.calls)]
            taken += len(caller.calls)
            if any(isinstance(answer, NoScriptError) for answer in own):
                late.append(self._again(caller, own))
            else:
                self._answer(caller, own)
        if late:
            await asyncio.gather(*late)

    async def _execute(self, calls: Sequence[Call]) -> list[Any]:
        commands = [("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args) for call in calls]
        if self._idle:
            lane = self._idle.pop()
            try:
                return await lane.execute(commands)
            finally:
                self._idle.append(lane)
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    def _answer(self, caller: _Caller, answers: list[Any]) -> None:
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        _tell(caller, self._guard.refusal(failed) if failed else None, answers)

    async def _again(self, caller: _Caller, answers: list[Any]) -> None:
        """Run what a Redis that has restarted did not know, and all after it.

        The order is what they rely on, and all but the first may be repeated.
        """
        known = next(index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError))
        loop = asyncio.get_running_loop()
        done = answers[:known]
        try:
            async with asyncio.timeout(
                max(caller.since + self._guard.deadline - loop.time(), self._guard.deadline / 4)
            ):
                done += [await call.script(call.keys, call.args) for call in caller.calls[known:]]
        except (RedisError, OSError, TimeoutError) as error:
            _tell(caller, self._guard.refusal(error))
        else:
            self._answer(caller, done)


def _tell(caller: _Caller, error: Exception | None, answers: list[Any] | None = None) -> None:
    if caller.answers.done():
        return  # the caller has left
    if error is not None:
        caller.answers.set_exception(error)
    else:
        caller.answers.set_result(answers or [])
