"""Answers that never came, or came in pieces: what the caller is told, and whether a session may be left behind."""

import asyncio
import socket
import time
from dataclasses import replace
from typing import Literal

import pytest

from service.errors import UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from service.upstream.call import MAX_ANSWER
from support.scripted import KEY, SESSION, Client, Play, answer, playing, says

Doing = Literal["create", "cancel"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def closed_port() -> int:
    """A port of the loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("doing", ["create", "cancel"])
async def test_a_refused_connection_created_nothing(closed_port: int, doing: Doing) -> None:
    client = Client(closed_port)
    refused = await client.refused(doing)
    assert isinstance(refused, UpstreamUnavailable)
    assert (refused.retry_after, client.orphans) == (5.0, 0)
    await client.transport.aclose()


async def test_a_failed_tls_handshake_created_nothing() -> None:
    async with playing(Play(b"HTTP/1.1 400 Plain\r\n\r\n", "close", read=False)) as (client, upstream):
        client.account = replace(client.account, base_url=f"https://127.0.0.1:{upstream.port}/v1")
        assert isinstance(await client.refused(), UpstreamUnavailable)
        assert client.orphans == 0


async def test_a_name_that_does_not_resolve_created_nothing() -> None:
    client = Client(1)
    client.account = replace(client.account, base_url="http://upstream.invalid/v1")
    assert isinstance(await client.refused(), UpstreamUnavailable)
    assert client.orphans == 0
    await client.transport.aclose()


LOST = {
    "closed after reading": Play(then="close"),
    "closed before reading": Play(then="close", read=False),
    "reset after reading": Play(then="reset"),
    "reset before reading": Play(then="reset", read=False),
    "half a status line": Play(b"HTTP/1.1 2", "close"),
    "half the headers": Play(b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    "half the body": Play(answer(200, SESSION)[:-20], "close"),
    "half the body, then reset": Play(answer(200, SESSION)[:-20], "reset"),
    "half a chunk": Play(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{", "close"),
}
GARBAGE = {
    "not HTTP": Play(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "close"),
    "nonsense": Play(b"\x00\x01\x02\x03\r\n\r\n", "close"),
    "TLS alert": Play(b"\x15\x03\x01\x00\x02\x02\x46", "close"),
    "no status": Play(b"HTTP/1.1 OK\r\n\r\n", "close"),
    "HTTP/9": Play(b"HTTP/9.9 200 OK\r\n\r\n", "close"),
    "bad length": Play(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "close"),
    "two lengths": Play(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!", "close"),
    "bad chunk": Play(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}", "close"),
    "endless header": Play(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", "close"),
    "many headers": Play(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n", "close"),
}


@pytest.mark.parametrize("play", LOST.values(), ids=LOST)
async def test_a_connection_lost_after_sending_may_have_left_a_session(play: Play) -> None:
    async with playing(play, says(200, SESSION)) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamUnavailable)
        assert client.orphans == 1
        assert upstream.connections == 1  # never sent a second time


@pytest.mark.parametrize("play", [*LOST.values(), *GARBAGE.values()], ids=[*LOST, *GARBAGE])
async def test_a_cancel_whose_answer_was_lost_is_not_confirmed(play: Play) -> None:
    async with playing(play) as (client, _):
        await client.refused("cancel")
        assert client.orphans == 0


@pytest.mark.parametrize("play", GARBAGE.values(), ids=GARBAGE)
async def test_an_answer_that_is_not_http_is_refused_and_may_have_left_a_session(play: Play) -> None:
    async with playing(play) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamUnavailable | UpstreamInvalid)
        assert (client.orphans, upstream.connections) == (1, 1)


@pytest.mark.parametrize("body", [b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd"])
async def test_an_answer_compressed_against_our_wish_is_no_session(body: bytes) -> None:
    async with playing(says(200, body, content_encoding="gzip")) as (client, _):
        assert isinstance(await client.refused(), UpstreamInvalid)
        assert client.orphans == 1


async def test_a_connection_that_went_stale_is_not_used_to_send_twice() -> None:
    """The server takes the second request on a connection that it then drops: that request may have counted."""
    async with playing(says(200, SESSION), Play(then="close"), says(200, SESSION)) as (client, upstream):
        assert (await client.create()).client_secret == "ek_1"
        assert isinstance(await client.refused(), UpstreamUnavailable)
        assert (client.orphans, len(upstream.received)) == (1, 2)


@pytest.mark.parametrize(
    "play",
    [
        Play(then="hang"),
        Play(then="hang", read=False),
        Play(b"HTTP/1.1 200 OK\r\n", "hang"),
        Play(answer(200, SESSION)[:-1], "hang"),
    ],
    ids=["silent", "deaf", "half the headers", "half the body"],
)
async def test_an_upstream_that_takes_too_long_may_have_created_a_session(play: Play) -> None:
    async with playing(play, timeout=0.15) as (client, upstream):
        started = time.perf_counter()
        assert isinstance(await client.refused(), UpstreamTimeout)
        assert time.perf_counter() - started < 1
        assert (client.orphans, upstream.connections) == (1, 1)


@pytest.mark.parametrize(
    ("head", "drop"),
    [(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b" ")],
    ids=["headers", "body"],
)
async def test_an_answer_that_drips_is_bounded_as_a_whole(head: bytes, drop: bytes) -> None:
    drip = Play(drop, "hang", read=False, times=100, pause=0.02)
    async with playing(Play(head), drip, timeout=0.15) as (client, _):
        assert isinstance(await client.refused(), UpstreamTimeout)
        assert client.orphans == 1


async def test_a_cancel_that_takes_too_long_is_not_confirmed() -> None:
    async with playing(*[Play(then="hang")] * 3, timeout=0.1) as (client, _):
        assert isinstance(await client.refused("cancel"), UpstreamTimeout)
        assert client.orphans == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_without_end_is_cut_off(chunked: bool) -> None:
    size = 30 * 1024 * 1024
    piece = b"x" * 2**20
    how = b"transfer-encoding: chunked" if chunked else f"content-length: {size}".encode()
    head = Play(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n")
    flood = Play(b"100000\r\n" + piece + b"\r\n" if chunked else piece, "close", read=False, times=30)
    async with playing(head, flood) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamInvalid)
        assert client.orphans == 1
    assert upstream.sent < MAX_ANSWER + 12 * 2**20


@pytest.mark.parametrize("doing", ["create", "cancel"])
async def test_no_error_along_the_chain_holds_the_key(doing: Doing) -> None:
    """aiohttp's errors carry the request's headers, and their `repr` shows them."""
    plays = {**LOST, **GARBAGE, "refused": says(401), "failed": says(500)}
    leaks = set()
    async with playing(*plays.values()) as (client, _):
        for name in plays:
            refusal = await client.refused(doing)
            seen: BaseException | None = refusal
            while seen is not None:
                if KEY in f"{seen} {seen!r}":
                    leaks.add(name)
                seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert leaks == set()


async def test_after_a_lost_answer_the_next_create_is_served() -> None:
    async with playing(Play(then="hang"), timeout=0.1) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamTimeout)
        upstream.plays.append(says(200, SESSION))
        assert (await client.create()).session.id == "cksess_1"


async def test_a_caller_that_gives_up_leaves_no_connection_in_use() -> None:
    async with playing(Play(then="hang")) as (client, upstream):
        task = asyncio.create_task(client.create())
        await upstream.read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        upstream.plays.append(says(200, SESSION))
        assert (await client.create()).client_secret == "ek_1"
        assert upstream.connections == 2
