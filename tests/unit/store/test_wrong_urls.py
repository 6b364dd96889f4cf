"""A Redis URL that is wrong: the reason says in which way, and never quotes it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect, probe
from support.redis_servers import Server, running

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("wrong-urls"))
    with running([server]):
        server.start()
        server.call("CONFIG", "SET", "requirepass", PASSWORD)
        yield server


@pytest.fixture
async def web() -> AsyncIterator[int]:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def reason(url: str) -> str:
    redis = connect(url, timeout=0.3, connections=4)
    try:
        async with RedisGuard(Metrics(), deadline=0.3)():
            await probe(redis)
    except StoreUnavailable as refusal:
        return refusal.reason or ""
    finally:
        await redis.aclose()
    return "well"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:hunter2@{at}", "well"),
        ("redis://{at}", "Redis: AuthenticationError (it wants a password, or another one)"),
        ("redis://:wrong-hunter2@{at}", "Redis: AuthenticationError (it wants a password, or another one)"),
        ("redis://:hunter2@{at}/77", "Redis: ResponseError (it has no database of this number)"),
        ("rediss://:hunter2@{at}", "Redis: TimeoutError"),
        ("redis+cluster://:hunter2@{at}", "Redis: ConnectionError (it is no cluster: redis:// is for one server)"),
        ("redis+cluster://{at}", "Redis: ConnectionError (it wants a password, or another one)"),
        ("redis+sentinel://{at}/main", "Redis: MasterNotFoundError (it wants a password, or another one)"),
        ("redis+sentinel://127.0.0.1:1/main", "Redis: MasterNotFoundError (connection refused)"),
        ("redis://127.0.0.1:1", "Redis: ConnectionError (connection refused)"),
        ("unix:///no/such/redis.sock", "Redis: ConnectionError (no such file or directory)"),
    ],
)
async def test_a_wrong_url_is_told_in_words(server: Server, url: str, says: str) -> None:
    assert await reason(url.replace("{at}", server.url.removeprefix("redis://"))) == says


async def test_what_is_no_redis_is_told(web: int) -> None:
    assert await reason(f"redis://:{PASSWORD}@127.0.0.1:{web}") == "Redis: InvalidResponse (what answers is no Redis)"


async def test_a_name_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up by hand: a test machine may have no resolver, or one that takes its time."""

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    assert await reason(f"redis://:{PASSWORD}@redis.nowhere") == "Redis: ConnectionError (its name is not known here)"
