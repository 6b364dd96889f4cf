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
            return await self._alone(None, calls, since)
        if not self._idle:
            caller = _Caller(calls, loop.create_future(), since)
            self._waiting.append(caller)
            return await caller.answers
        # Nobody waits, so there is nobody to share with, and no task is needed to serve us.
        lane = self._idle.pop()
        try:
            return await self._alone(lane, calls, since)
        finally:
            self._hand_over(lane)

    async def _alone(self, lane: Lane | None, calls: Sequence[Call], since: float) -> list[Any]:
        try:
            answers = await self._exchange(lane, calls, since)
        except (RedisError, OSError, TimeoutError) as error:
            self._send_away(error)
            raise self._guard.refusal(error) from error
        if not [answer for answer in answers if isinstance(answer, Exception)]:
            return answers
        try:
            return await self._mended(calls, answers, since)
        except (RedisError, OSError, TimeoutError) as error:  # of our own scripts: nobody else's
            raise self._guard.refusal(error) from error

    def _hand_over(self, lane: Lane) -> None:
        """Let the lane serve those who came meanwhile."""
        if not self._waiting:
            self._idle.append(lane)
            return
        task = asyncio.get_running_loop().create_task(self._drain(lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, lane: Lane) -> None:
        try:
            while self._waiting:
                await self._serve(lane, [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))])
        finally:
            # At once, not when the task's end is told: who comes in between would wait for a lane that serves nobody.
            self._hand_over(lane)

    async def _serve(self, lane: Lane, callers: Sequence[_Caller]) -> None:
        """Tell each caller something, whatever happens: nobody else would."""
        try:
            await self._answer(callers, lane)
        except asyncio.CancelledError:
            for caller in callers:
                caller.answers.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (a defect is each caller's to tell; the next ones go on)
            self._fail(callers, error)
            self._send_away(error)

    async def _answer(self, callers: Sequence[_Caller], lane: Lane) -> None:
        calls = [call for caller in callers for call in caller.calls]
        answers = await self._exchange(lane, calls, callers[0].since)
        taken, late = 0, []
        for caller in callers:
            own = answers[taken : taken + len(caller.calls)]
            taken += len(caller.calls)
            if [answer for answer in own if isinstance(answer, Exception)]:
                late.append(self._tell_mended(caller, own))
            elif not caller.answers.done():  # else the caller has left
                caller.answers.set_result(own)
        if late:
            await asyncio.gather(*late)

    async def _exchange(self, lane: Lane | None, calls: Sequence[Call], since: float) -> list[Any]:
        """Run the scripts; *since* is when the first who asked for them did."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        commands = [("EVALSHA", script.sha, len(keys), *keys, *args) for script, keys, args in calls]
        try:
            async with asyncio.timeout(self._left(since)):
                if lane is not None:
                    return await lane.execute(commands)
                async with self._redis.pipeline(transaction=False) as pipe:
                    for command in commands:
                        pipe.execute_command(*command)
                    answers: list[Any] = await pipe.execute(raise_on_error=False)
                    return answers
        finally:
            self._guard.count(loop.time() - started)

    def _left(self, since: float) -> float:
        """Return how long somebody still waits: not much past the deadline, the wait for a turn included.

        Nobody gets no time at all.
        """
        deadline = self._guard.deadline
        return max(deadline - (asyncio.get_running_loop().time() - since), deadline / 4)

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
        except Exception as error:  # noqa: BLE001  (the caller's to tell; the others have theirs)
            self._fail([caller], error)
        else:
            if not caller.answers.done():
                caller.answers.set_result(done)

    def _send_away(self, error: Exception) -> None:
        """Refuse those whose time is over, after an error: each would wait for another pipeline that comes to nothing.

        They stand in front: who came first is over first.
        """
        now, over = asyncio.get_running_loop().time(), []
        while self._waiting and self._waiting[0].since + self._guard.deadline <= now:
            over.append(self._waiting.popleft())
        self._fail(over, error)

    def _fail(self, callers: Sequence[_Caller], error: Exception) -> None:
        for caller in callers:
            if not caller.answers.done():
                known = isinstance(error, RedisError | OSError | TimeoutError)
                caller.answers.set_exception(self._guard.refusal(error) if known else error)
