"""Redis over TLS: the kept connection is taken over from redis-py with its encryption, and made anew with it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.proxied import certificate
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect
from service.store.pipeline import Call, Pipeline


@pytest.fixture
async def over_tls(redis: Redis, tmp_path: Path) -> AsyncIterator[Redis]:
    """A client of the same Redis by way of what ends TLS in front of it: not every redis-server is built with TLS."""
    certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "fullchain.pem", tmp_path / "key.pem")
    path = redis.connection_pool.connection_kwargs["path"]

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    relays: set[asyncio.Task[None] | None] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())
        inner, outer = await asyncio.open_unix_connection(path)
        try:
            await asyncio.gather(copy(reader, outer), copy(inner, writer), return_exceptions=True)
        finally:
            writer.transport.abort()
            outer.transport.abort()

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        client = connect(
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'fullchain.pem'}", timeout=5.0, connections=4
        )
        yield client
        await client.aclose()
        listening.close()
        for task in filter(None, relays):
            task.cancel()
        await asyncio.gather(*filter(None, relays), return_exceptions=True)
        await asyncio.sleep(0.05)  # a transport that was aborted is closed a turn later


async def test_scripts_run_over_tls_also_after_a_lost_connection(redis: Redis, over_tls: Redis) -> None:
    pipeline = Pipeline(over_tls, RedisGuard(Metrics(), deadline=5.0))
    echo = over_tls.register_script("return ARGV[1]")
    long = "x" * 300_000
    found = await asyncio.gather(*(pipeline.run(Call(echo, ["k"], [f"{n}{long}"])) for n in range(10)))
    assert found == [[f"{n}{long}".encode()] for n in range(10)]
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await pipeline.run(Call(echo, ["k"], ["again"])) == [b"again"]
