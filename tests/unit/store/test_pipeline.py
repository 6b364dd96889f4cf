"""Scripts of many callers in one pipeline: each gets its own answers, in time, whatever happens to the others."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.principal import Principal
from service.session import Limits, Window
from service.store.connect import RedisGuard, connect
from service.store.lane import Lane
from service.store.pipeline import LANES, Call, Pipeline
from service.store.queue import CancelQueue
from service.store.records import UserKeys
from service.store.sessions import SessionStore

SPIN = """
local function now() local time = redis.call('TIME') return time[1] * 1000 + time[2] / 1000 end
local ends = now() + ARGV[1]
while now() < ends do end
return 1
"""
"""Keeps Redis busy for so many milliseconds."""


@pytest.fixture
def pipeline(redis: Redis) -> Pipeline:
    """With time enough for a busy machine: one test alone is about too little of it."""
    return Pipeline(redis, RedisGuard(Metrics(), deadline=10.0))


def paused(redis: Redis, pipeline: Pipeline, milliseconds: int) -> Redis:
    """Let Redis fall silent as soon as somebody is to tell it a script again."""
    other = Redis(unix_socket_path=redis.connection_pool.connection_kwargs["path"])
    mended, silenced = pipeline._mended, asyncio.Event()

    async def in_silence(calls: Sequence[Call], answers: list[Any], since: float) -> list[Any]:
        if not silenced.is_set():
            silenced.set()
            await other.client_pause(milliseconds)
        return await mended(calls, answers, since)

    pipeline._mended = in_silence  # type: ignore[method-assign]
    return other


@asynccontextmanager
async def relayed(
    redis_socket: Path, answer: Callable[[bytes], bytes] = lambda read: read
) -> AsyncIterator[tuple[Redis, Pipeline, list[asyncio.StreamWriter]]]:
    """A client whose every connection goes through us, and our ends of them.

    What *answer* changes of what Redis says is the last of its connection.
    """
    accepted: list[asyncio.StreamWriter] = []

    async def copy(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        while read := await reader.read(65_536):
            changed = change(read)
            writer.write(changed)
            if changed != read:
                break
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        inner, outer = await asyncio.open_unix_connection(str(redis_socket))
        await asyncio.gather(
            copy(reader, outer, lambda read: read), copy(inner, writer, answer), return_exceptions=True
        )
        outer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        redis = connect(f"redis://127.0.0.1:{port}/0", timeout=5.0, connections=8)
        yield redis, Pipeline(redis, RedisGuard(Metrics(), deadline=5.0)), accepted
        await redis.aclose()


async def test_each_caller_gets_its_own_answers(redis: Redis, pipeline: Pipeline) -> None:
    echo = redis.register_script("return {KEYS[1], ARGV[1]}")
    calls = [[Call(echo, [f"k{n}"], [part]) for part in range(n % 3 + 1)] for n in range(300)]
    found = await asyncio.gather(*(pipeline.run(*each) for each in calls))
    for number, answers in enumerate(found):
        assert answers == [[f"k{number}".encode(), str(part).encode()] for part in range(number % 3 + 1)]


async def test_one_callers_error_is_nobody_elses(redis: Redis, pipeline: Pipeline) -> None:
    good, bad = redis.register_script("return 1"), redis.register_script("return redis.call('INCR', 'text')")
    await redis.set("text", "no number")
    found = await asyncio.gather(
        *(pipeline.run(Call(bad if n % 2 else good, ["k"], [])) for n in range(20)), return_exceptions=True
    )
    assert found[::2] == [[1]] * 10
    assert all(isinstance(each, StoreUnavailable) for each in found[1::2])


async def test_a_caller_who_leaves_takes_nobody_along(redis: Redis, pipeline: Pipeline) -> None:
    script = redis.register_script("return 1")
    tasks = [asyncio.create_task(pipeline.run(Call(script, ["k"], []))) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1::2] == [[1]] * 5


async def test_a_redis_that_forgot_its_scripts_is_told_them_again_in_order(redis: Redis, pipeline: Pipeline) -> None:
    push = redis.register_script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    await pipeline.run(Call(push, ["warm"], [0]))
    await redis.script_flush()
    assert await pipeline.run(*(Call(push, ["list"], [n]) for n in range(3))) == [1, 2, 3]
    assert await redis.lrange("list", 0, -1) == [b"0", b"1", b"2"]


async def test_nobody_waits_for_a_silent_redis_past_the_deadline(redis: Redis) -> None:
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=0.3))
    script = redis.register_script("return redis.call('SET', KEYS[1], '1')")
    await redis.script_flush()  # each must be told the script again
    async with paused(redis, pipeline, 2500):
        started = time.perf_counter()
        found = await asyncio.gather(
            *(pipeline.run(Call(script, ["k"], [])) for _ in range(24)), return_exceptions=True
        )
        took = time.perf_counter() - started
    assert any(isinstance(each, StoreUnavailable) for each in found)
    assert took < 2, "and not the whole silence"
    await redis.ping()


async def test_a_defect_is_told_to_all_and_stops_nobody(
    redis: Redis, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = redis.register_script("return 1")
    await redis.script_flush()

    async def broken(_script: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(redis, "script_load", broken)
        patch.setattr("service.store.pipeline.MOST", 5)  # more wait than are served at once
        async with asyncio.timeout(10):
            found = await asyncio.gather(
                *(pipeline.run(Call(script, ["k"], [])) for _ in range(30)), return_exceptions=True
            )
    assert {type(each) for each in found} == {RuntimeError}
    assert await pipeline.run(Call(script, ["k"], [])) == [1]


async def test_who_waits_is_told_when_those_who_are_served_are_given_up(redis: Redis, pipeline: Pipeline) -> None:
    script = redis.register_script("return 1")
    assert await pipeline.run(Call(script, ["k"], [])) == [1]
    await redis.client_pause(300)
    served = [asyncio.create_task(pipeline.run(Call(script, ["k"], []))) for _ in range(2)]
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(pipeline.run(Call(script, ["k"], []))) for _ in range(5)]
    await asyncio.sleep(0)
    for task in served:
        task.cancel()
    assert await asyncio.gather(*waiting) == [[1]] * 5


async def test_it_goes_on_after_a_lost_connection(redis: Redis, pipeline: Pipeline) -> None:
    script = redis.register_script("return 7")
    assert await pipeline.run(Call(script, ["k"], [])) == [7]
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await pipeline.run(Call(script, ["k"], [])) == [7]


async def test_what_was_under_way_on_a_lost_connection_is_done_on_the_next(redis: Redis, pipeline: Pipeline) -> None:
    script = redis.register_script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    assert await pipeline.run(Call(script, ["list"], ["first"])) == [1]
    await redis.client_pause(300)
    waiting = [asyncio.create_task(pipeline.run(Call(script, ["list"], [n]))) for n in range(3)]
    await asyncio.sleep(0.05)  # sent, and not answered
    for connection in redis.connection_pool._in_use_connections:
        if connection._writer:
            connection._writer.transport.abort()
    found = await asyncio.gather(*waiting)
    # Once or twice: Redis may have read them before the connection was lost. But each has its own answer.
    lengths = [length for (length,) in found]
    pushed = await redis.lrange("list", 0, -1)
    assert sorted(set(lengths)) == sorted(lengths)
    assert all(pushed[length - 1] == str(number).encode() for number, length in enumerate(lengths))
    assert all(1 <= pushed.count(str(number).encode()) <= 2 for number in range(3))


async def test_the_answer_to_who_gave_up_is_nobody_elses(redis: Redis) -> None:
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=0.2))
    echo = redis.register_script("return ARGV[1]")
    assert await pipeline.run(Call(echo, ["k"], ["warm"])) == [b"warm"]
    await redis.client_pause(500)
    with pytest.raises(StoreUnavailable):
        await pipeline.run(Call(echo, ["k"], ["late"]))
    await asyncio.sleep(0.5)
    found = await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [n])) for n in range(5)))
    assert found == [[str(n).encode()] for n in range(5)]


async def test_hundreds_who_wait_for_a_silent_redis_are_all_sent_away_in_time(redis: Redis) -> None:
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=0.4))
    script = redis.register_script("return 1")
    await pipeline.run(Call(script, ["k"], []))
    await redis.client_pause(3000)
    started = time.perf_counter()
    found = await asyncio.gather(*(pipeline.run(Call(script, ["k"], [])) for _ in range(1000)), return_exceptions=True)
    assert all(isinstance(each, StoreUnavailable) for each in found)
    assert time.perf_counter() - started < 2
    await redis.ping()


def test_a_connection_that_was_reset_while_idle_is_made_anew_on_uvloop_too(redis_socket: Path) -> None:
    """As when a firewall forgets it: uvloop has an error of its own for that, which redis-py doesn't know."""

    async def run() -> None:
        async with relayed(redis_socket) as (redis, pipeline, accepted):
            echo = redis.register_script("return ARGV[1]")
            await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [n])) for n in range(8)), redis.ping())
            for flush in (False, True):
                if flush:  # the pool's connections are needed too, to tell Redis the script again
                    await redis.script_flush()
                for writer in accepted:
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    writer.transport.abort()
                accepted.clear()
                await asyncio.sleep(0.05)
                found = await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [n])) for n in range(8)))
                assert found == [[str(n).encode()] for n in range(8)]

    uvloop.run(run())


async def test_a_client_that_is_closed_does_not_wait_for_the_kept_connection(redis: Redis) -> None:
    other = Redis(unix_socket_path=redis.connection_pool.connection_kwargs["path"])
    pipeline = Pipeline(other, RedisGuard(Metrics(), deadline=1.0))
    assert await pipeline.run(Call(other.register_script("return 1"), ["k"], [])) == [1]
    async with asyncio.timeout(1):
        await other.aclose()


async def busy_lanes(redis: Redis, pipeline: Pipeline, milliseconds: int) -> list[asyncio.Task[list[Any]]]:
    """Let Redis fall silent for a while, and every lane wait for it."""
    script = redis.register_script("return 1")
    assert await pipeline.run(Call(script, ["k"], [])) == [1]
    await redis.client_pause(milliseconds)
    served = [asyncio.create_task(pipeline.run(Call(script, ["k"], []))) for _ in range(LANES)]
    await asyncio.sleep(0.05)
    return served


async def test_who_comes_late_is_not_cut_short_by_who_came_long_before(redis: Redis) -> None:
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=2.0))
    quick, slow = redis.register_script("return 1"), redis.register_script(SPIN)
    await pipeline.run(Call(quick, ["k"], []), Call(slow, ["k"], [0]))
    served = await busy_lanes(redis, pipeline, 1400)
    early = asyncio.create_task(pipeline.run(Call(slow, ["k"], [800])))
    await asyncio.sleep(1.1)
    assert await pipeline.run(Call(quick, ["k"], [])) == [1]
    await asyncio.gather(*served, early, return_exceptions=True)


async def test_whoever_has_left_is_not_asked_for(redis: Redis, pipeline: Pipeline) -> None:
    count = redis.register_script("return redis.call('INCR', KEYS[1])")
    served = await busy_lanes(redis, pipeline, 300)
    waiting = [asyncio.create_task(pipeline.run(Call(count, ["left"], []))) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[:9]:
        task.cancel()
    assert await waiting[9] == [1]
    await asyncio.gather(*served)


async def test_however_many_wait_they_are_told_in_time(redis: Redis) -> None:
    """Also where each pipeline succeeds, and soon."""
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=0.5))
    slow = redis.register_script(SPIN)
    assert await pipeline.run(Call(slow, ["k"], [0])) == [1]
    half: Any = 0.5
    found = await asyncio.gather(
        *(pipeline.run(Call(slow, ["k"], [half])) for _ in range(6000)), return_exceptions=True
    )
    # All would be three seconds of Redis, and each caller has half a one. A slow machine answers even fewer.
    assert sum(isinstance(each, StoreUnavailable) for each in found) > 3000


async def test_what_can_not_be_sent_is_nobody_elses_trouble(redis: Redis, pipeline: Pipeline) -> None:
    echo = redis.register_script("return ARGV[1]")
    words = ["\ud800" if number == 20 else str(number) for number in range(40)]
    found = await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [word])) for word in words), return_exceptions=True)
    assert isinstance(found.pop(20), UnicodeEncodeError)
    assert found == [[word.encode()] for word in words if word != "\ud800"]


async def test_what_was_answered_before_the_connection_was_lost_is_not_done_again(redis_socket: Path) -> None:
    cut: list[bytes] = []

    def half(read: bytes) -> bytes:
        """Let the first of two answers through, once."""
        if not cut and read.startswith(b":1\r\n:"):
            cut.append(read)
            return b":1\r\n"
        return read

    async with relayed(redis_socket, half) as (redis, pipeline, _):
        count = redis.register_script("return redis.call('INCR', KEYS[1])")
        await pipeline.run(Call(count, ["warm"], []))
        await redis.delete("first", "second")
        # The second ran too, and its answer was lost: whether it did can't be known.
        assert await pipeline.run(Call(count, ["first"], []), Call(count, ["second"], [])) == [1, 2]
        assert (cut[0], await redis.mget("first", "second")) == (b":1\r\n:1\r\n", [b"1", b"2"])


async def test_a_mint_does_not_stand_in_line_behind_a_sweeper(redis: Redis) -> None:
    guard = RedisGuard(Metrics(), deadline=10.0)
    pipeline = Pipeline(redis, guard)
    store, queue = SessionStore(redis, guard, pipeline), CancelQueue(redis, guard, pipeline)
    users = [UserKeys.of("acme", f"user-{number}") for number in range(400)]
    for keys in users:
        redis_queue: Any = redis.hset(keys.queue, mapping={f"cksess_{n}": "not readable" for n in range(50)})
        await redis_queue
    now = time.time()
    who = Principal("acme", "alice", "sid", now, now + 3600, claims={})
    await store.admit(who, Limits(), lease_seconds=25)
    sweeping = [asyncio.create_task(queue.queued(keys)) for keys in users]
    await asyncio.sleep(0)
    await store.admit(who, Limits(), lease_seconds=25)
    assert sum(task.done() for task in sweeping) < 200
    await asyncio.gather(*sweeping)


async def test_who_was_answered_before_a_pipeline_was_given_up_is_told(redis: Redis) -> None:
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=1.0))
    count, slow = redis.register_script("return redis.call('INCR', KEYS[1])"), redis.register_script(SPIN)
    await pipeline.run(Call(count, ["warm"], []), Call(slow, ["k"], [0]))
    served = await busy_lanes(redis, pipeline, 100)
    # So long that Redis takes them in several reads, and answers in between.
    waiting = [asyncio.create_task(pipeline.run(Call(count, ["n"], ["x" * 4000]))) for _ in range(40)]
    last = asyncio.create_task(pipeline.run(Call(slow, ["k"], [1500])))
    found = await asyncio.gather(*waiting, last, return_exceptions=True)
    await asyncio.gather(*served)
    assert isinstance(found[-1], StoreUnavailable)
    assert sum(isinstance(each, list) for each in found) >= 20


async def test_what_must_be_told_again_keeps_nobody_else_waiting(redis_socket: Path) -> None:
    """Redis knows one script and not another, and the pool's connections are all in use."""
    redis = connect(f"unix://{redis_socket}", timeout=3.0, connections=LANES + 1)
    pipeline = Pipeline(redis, RedisGuard(Metrics(), deadline=3.0))
    await redis.flushall()
    await redis.script_flush()
    known = redis.register_script("return 1")
    warm = [pipeline.run(Call(known, ["k"], [])) for _ in range(4 * LANES)]
    assert await asyncio.gather(*warm) == [[1]] * 4 * LANES
    pool: Any = redis.connection_pool
    taken = await pool.get_connection()
    unknown = redis.register_script("return 2")
    mending = [asyncio.create_task(pipeline.run(Call(unknown, ["k"], []))) for _ in range(LANES + 1)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(pipeline.run(Call(known, ["k"], []))) for _ in range(20)]
    assert await asyncio.gather(*others) == [[1]] * 20
    assert not any(each.done() for each in mending)
    await pool.release(taken)
    assert await asyncio.gather(*mending) == [[2]] * len(mending)
    await redis.aclose()


async def test_an_answer_to_nothing_shifts_nobody_elses(redis_socket: Path) -> None:
    async with relayed(redis_socket) as (redis, pipeline, accepted):
        echo = redis.register_script("return ARGV[1]")
        await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [n])) for n in range(20)))
        for writer in accepted:
            writer.write(b"+somebody else's\r\n")
        await asyncio.sleep(0.1)
        found = await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [n])) for n in range(20)))
        assert found == [[str(n).encode()] for n in range(20)]


async def test_whoever_leaves_while_being_served_is_not_told_the_script_again_for(
    redis: Redis, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await busy_lanes(redis, pipeline, 100)
    unknown = redis.register_script("return redis.call('INCR', KEYS[1]) -- never told before")
    waiting = [asyncio.create_task(pipeline.run(Call(unknown, ["left"], []))) for _ in range(10)]
    await asyncio.sleep(0)
    execute = Lane.execute

    async def left_meanwhile(lane: Lane, commands: Sequence[bytes], answers: list[Any]) -> list[Any]:
        found = await execute(lane, commands, answers)
        for task in waiting:
            task.cancel()
        await asyncio.sleep(0)
        return found

    monkeypatch.setattr(Lane, "execute", left_meanwhile)
    await asyncio.gather(*served, *waiting, return_exceptions=True)
    assert await pipeline.run(Call(redis.register_script("return 1"), ["k"], [])) == [1]
    await asyncio.gather(*pipeline._tasks)
    assert await redis.get("left") is None


async def test_a_lane_is_not_lost_with_a_task_that_ends_before_it_begins(
    redis: Redis, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await busy_lanes(redis, pipeline, 100)
    waiting = asyncio.create_task(pipeline.run(Call(redis.register_script("return 3"), ["k"], [])))
    spawn, ended = pipeline._spawn, list[int]()

    def ends_at_once(work: Any, **options: Any) -> None:
        spawn(work, **options)
        if len(ended) < LANES:
            for task in pipeline._tasks:
                ended.append(task.cancel())

    monkeypatch.setattr(pipeline, "_spawn", ends_at_once)
    async with asyncio.timeout(5):
        assert await waiting == [3]
    assert any(ended)
    await asyncio.gather(*served)


async def test_an_admission_that_is_repeated_counts_once(redis: Redis) -> None:
    """Its answer was lost with the connection, and the lane asks again."""
    guard = RedisGuard(Metrics(), deadline=10.0)
    pipeline = Pipeline(redis, guard)
    store, now = SessionStore(redis, guard, pipeline), time.time()
    who = Principal("acme", "alice", "sid", now, now + 3600, claims={})
    limits = Limits(mints=(Window(5, 60),), live=1, excess="refuse")
    run, said = pipeline.run, list[Any]()

    async def twice(*calls: Call) -> list[Any]:
        said.append(await run(*calls))
        return await run(*calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run", twice)
        admission = await store.admit(who, limits, lease_seconds=25)
    assert admission.windows[0].left == 4
    assert said[0][0][0] == b"ok"
    await store.forgo(admission)
    assert await redis.get(admission.keys.live) is None
