"""Redis's troubles are bounded and have one name."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect


@pytest.fixture
def silent() -> Iterator[str]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_redis_that_never_answers_is_given_up(silent: str) -> None:
    redis = connect(silent, timeout=0.2, connections=2)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        async with RedisGuard(Metrics(), deadline=0.2)():
            await redis.ping()
    assert time.monotonic() - started < 2
    await redis.aclose()


async def test_a_refused_connection_is_told_at_once() -> None:
    redis = connect("redis://127.0.0.1:1", timeout=5, connections=2)
    metrics = Metrics()
    with pytest.raises(StoreUnavailable):
        async with RedisGuard(metrics, deadline=5)():
            await redis.ping()
    assert metrics.registry.get_sample_value("chatkit_mint_store_errors_total") == 1
    await redis.aclose()


async def test_there_is_no_socket_timeout(redis_socket: Path) -> None:
    """With one, redis-py 8.1 sends through `wait_for`, which on Python 3.11 swallows cancellations, deadlines included.

    Measured by cancelling a loop of pings 3,000 times: 50 to 107 lost with a socket timeout, none without.
    """
    redis = connect(f"unix://{redis_socket}", timeout=5, connections=10)
    assert redis.connection_pool.connection_kwargs["socket_timeout"] is None
    await redis.aclose()


async def test_callers_beyond_the_pool_wait_for_their_turn(redis_socket: Path) -> None:
    redis = connect(f"unix://{redis_socket}", timeout=5, connections=2)
    assert await asyncio.gather(*(redis.ping() for _ in range(50))) == [True] * 50
    await redis.aclose()
