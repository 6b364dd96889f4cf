"""Scripts of many callers in one pipeline: what comes while Redis is being asked goes along with the next.

A round trip costs this process several times what a script costs Redis; under load it is shared.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

from service.store.connect import RedisGuard
from service.store.lane import Lane

MOST: Final = 64
"""Callers in one pipeline, so that the first needn't wait for hundreds."""

_pack: Any = pack_command  # its types say that a command has one word


class Call(NamedTuple):
    """A script with its keys, all of one slot, and its arguments."""

    script: AsyncScript
    keys: Sequence[str]
    args: Sequence[str | int]

    @property
    def command(self) -> tuple[str | int, ...]:
        """What Redis is asked."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


class _Caller(NamedTuple):
    calls: Sequence[Call]
    packed: bytes
    answers: asyncio.Future[list[Any]]
    since: float


class Pipeline:
    """Runs scripts. A Cluster's go to their nodes each by itself, by way of its client."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._guard = guard
        self._waiting: deque[_Caller] = deque()
        self._lane = Lane(redis) if type(redis) is Redis else None
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, *calls: Call) -> list[Any]:
        """Run the scripts one after the other and return their answers; raise `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        packed = b"".join([_pack(call.command) for call in calls])
        caller = _Caller(calls, packed, loop.create_future(), loop.time())
        if self._lane is None:
            self._begin(self._by_client(caller))
        else:
            self._waiting.append(caller)
            if not self._busy:
                self._busy = True
                loop.call_soon(self._send, self._lane)  # with those who come in the same turn
        return await caller.answers

    def _send(self, lane: Lane) -> None:
        callers = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Nobody waits much longer than the deadline, the wait for a turn included; and nobody gets no time at all.
        left = max(callers[0].since + self._guard.deadline - started, self._guard.deadline / 4)
        timer = loop.call_later(left, self._late, lane, callers, started)
        done = partial(self._done, lane, callers, started, timer)
        lane.send(b"".join([each.packed for each in callers]), sum(len(each.calls) for each in callers), done)

    def _late(self, lane: Lane, callers: Sequence[_Caller], started: float) -> None:
        lane.drop()
        now = asyncio.get_running_loop().time()
        # Those whose time is over, too: each would wait for another pipeline that comes to nothing.
        over = [caller for caller in self._waiting if caller.since + self._guard.deadline <= now]
        for _ in over:
            self._waiting.popleft()
        self._fail([*callers, *over], TimeoutError())
        self._finish(lane, started)

    def _done(
        self,
        lane: Lane,
        callers: Sequence[_Caller],
        started: float,
        timer: asyncio.TimerHandle,
        answers: list[Any],
        error: Exception | None,
    ) -> None:
        timer.cancel()
        if error is not None:
            self._fail(callers, error)
        else:
            taken = 0
            for caller in callers:
                self._answer(caller, answers[taken : taken + len(caller.calls)])
                taken += len(caller.calls)
        self._finish(lane, started)

    def _finish(self, lane: Lane, started: float) -> None:
        self._guard.count(asyncio.get_running_loop().time() - started)
        self._busy = bool(self._waiting)
        if self._busy:
            self._send(lane)

    def _answer(self, caller: _Caller, answers: list[Any]) -> None:
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if not failed:
            _tell(caller, None, answers)
        elif any(isinstance(error, NoScriptError) for error in failed):
            self._begin(self._again(caller, answers))
        else:
            self._fail([caller], failed[0])

    def _fail(self, callers: Sequence[_Caller], error: Exception) -> None:
        for caller in callers:
            known = isinstance(error, (RedisError, OSError, TimeoutError))
            _tell(caller, self._guard.refusal(error) if known else error)  # a defect is each caller's to tell

    async def _by_client(self, caller: _Caller) -> None:
        """Let the client find the nodes; it sends the commands one after the other."""
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._guard.deadline), self._redis.pipeline(transaction=False) as pipe:
                for call in caller.calls:
                    pipe.execute_command(*call.command)
                answers = await pipe.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001
            self._fail([caller], error)
        else:
            self._answer(caller, answers)
        finally:
            self._guard.count(asyncio.get_running_loop().time() - started)

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
        except Exception as error:  # noqa: BLE001
            self._fail([caller], error)
        else:
            self._answer(caller, done)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _tell(caller: _Caller, error: Exception | None, answers: list[Any] | None = None) -> None:
    if caller.answers.done():
        return  # the caller has left
    if error is not None:
        caller.answers.set_exception(error)
    else:
        caller.answers.set_result(answers or [])
