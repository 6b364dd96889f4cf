"""Redis's troubles are bounded and have one name."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect
from support.redis_servers import Server, running


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
    assert metrics.registry.get_sample_value("chatkit_mint_store_errors_total", {"error": "ConnectionError"}) == 1
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


@asynccontextmanager
async def name_of(servers: list[Server]) -> AsyncIterator[str]:
    """A URL that leads to the first of *servers*, as a virtual address or a name would: old connections stay."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", servers[0].port)
        for task in (asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))):
            pumps.add(task)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        yield f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@pytest.mark.parametrize("serve_stale", ["yes", "no"])
async def test_a_demoted_primary_is_left_for_the_new_one(tmp_path: Path, serve_stale: str) -> None:
    """It keeps its connections and answers `-READONLY`, or `-MASTERDOWN`: a pool would stay with it for ever."""
    old, new = (Server(tmp_path / name, "--replica-serve-stale-data", serve_stale) for name in ("old", "new"))
    with running([old, new]):
        old.start()
        new.start()
        servers = [old]
        async with name_of(servers) as url:
            redis = connect(url, timeout=5, connections=3)
            write = redis.register_script("return redis.call('INCR', KEYS[1])")
            assert sorted(await asyncio.gather(*(write(["n"]) for _ in range(6)))) == [1, 2, 3, 4, 5, 6]
            servers[0] = new
            old.call("REPLICAOF", "127.0.0.1", "1")
            assert sorted(await asyncio.gather(*(write(["n"]) for _ in range(6)))) == [1, 2, 3, 4, 5, 6]
            await redis.aclose()


async def test_callers_who_give_up_leave_nothing_broken_behind(redis_socket: Path) -> None:
    redis = connect(f"unix://{redis_socket}", timeout=5, connections=3)
    echo = redis.register_script("return ARGV[1]")

    async def impatient(number: int) -> None:
        try:
            async with RedisGuard(Metrics(), deadline=secrets.randbelow(100) / 10_000)():
                assert await echo([], [number]) == str(number).encode()
        except StoreUnavailable:
            pass

    await asyncio.gather(*(impatient(number) for number in range(500)))
    pool = redis.connection_pool
    assert await asyncio.gather(*(echo([], [number]) for number in range(50))) == [b"%d" % n for n in range(50)]
    assert not pool._in_use_connections
    assert len(pool._available_connections) <= 3
    await redis.aclose()
