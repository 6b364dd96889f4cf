"""Scripts of many callers in one pipeline: each gets its own answers, in time, whatever happens to the others."""

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard
from service.store.pipeline import Call, Pipeline


@pytest.fixture
def pipeline(redis: Redis) -> Pipeline:
    """With time enough for a busy machine: one test alone is about too little of it."""
    return Pipeline(redis, RedisGuard(Metrics(), deadline=10.0))


def paused(redis: Redis, pipeline: Pipeline, milliseconds: int) -> Redis:
    """Let Redis fall silent after the next pipeline."""
    other = Redis(unix_socket_path=redis.connection_pool.connection_kwargs["path"])
    execute = pipeline._execute

    async def then_silent(calls: Any) -> list[Any]:
        answers = await execute(calls)
        pipeline._execute = execute  # type: ignore[method-assign]
        await other.client_pause(milliseconds)
        return answers

    pipeline._execute = then_silent  # type: ignore[method-assign]
    return other


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


async def test_it_goes_on_after_a_lost_connection(redis: Redis, pipeline: Pipeline) -> None:
    script = redis.register_script("return 7")
    assert await pipeline.run(Call(script, ["k"], [])) == [7]
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await pipeline.run(Call(script, ["k"], [])) == [7]
