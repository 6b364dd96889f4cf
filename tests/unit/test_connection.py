"""Answers go out in one write, whole and in order, whatever kind of answer it is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from service.connection import Connection

PARTS = ("HTTP/1.1 first", "HTTP/1.1 second")


async def plain(_request: Request) -> Response:
    return PlainTextResponse("whole")


async def nothing(_request: Request) -> Response:
    return Response(status_code=204)


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def torn(_request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield PARTS[0]
        raise RuntimeError("on purpose")

    return StreamingResponse(parts())


async def sized(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        for part in (*PARTS, "."):
            yield part
            await request.app.state.go_on.wait()

    return StreamingResponse(parts(), headers={"content-length": str(len("".join(PARTS)) + 1)})


async def streamed(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield PARTS[0]
        await request.app.state.go_on.wait()
        yield PARTS[1]

    return StreamingResponse(parts())


class Caller:
    """Speaks HTTP/1.1 by hand."""

    def __init__(self, protocol: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.app: Any = protocol.config.app
        self.writes: list[bytes] = []
        transport: Any = protocol.transport
        write = transport._transport.write

        class Listening:
            """Notes what is written."""

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

            def write(self, part: bytes) -> None:
                noted.append(part)
                write(part)

        inner, noted, transport._transport = transport._transport, self.writes, Listening()

    def ask(self, *lines: str, body: str = "") -> None:
        self.writer.write("\r\n".join([*lines, "host: here", "", body]).encode())

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readuntil(end)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    endpoints = (plain, nothing, echo, torn, sized, streamed)
    routes = [Route(f"/{each.__name__}", each, methods=["GET", "POST"]) for each in endpoints]
    app = Starlette(routes=routes)
    app.state.go_on = asyncio.Event()
    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None, port=0)
    made: list[Connection] = []
    config.load()

    class Known(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            made.append(self)

    config.http_protocol_class = Known
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  (it tells nobody)
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    while not made:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield Caller(made[0], reader, writer)
    writer.close()
    server.should_exit = True
    await running


async def test_head_and_body_are_one_write(caller: Caller) -> None:
    caller.ask("GET /plain HTTP/1.1")
    assert (await caller.until(b"whole")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(caller.writes) == 1


@pytest.mark.parametrize("request_line", ["HEAD /plain HTTP/1.1", "GET /nothing HTTP/1.1"])
async def test_an_answer_without_a_body_is_not_kept(caller: Caller, request_line: str) -> None:
    caller.ask(request_line)
    await caller.until(b"\r\n\r\n")
    assert len([each for each in caller.writes if each]) == 1


async def test_answers_to_requests_in_a_row_come_in_order(caller: Caller) -> None:
    for path in ("HEAD /plain", "GET /nothing", "GET /plain", "HEAD /plain", "GET /plain"):
        caller.ask(f"{path} HTTP/1.1")
    told = [await caller.until(b"\r\n\r\n") for _ in range(3)]
    told += [await caller.until(b"whole"), await caller.until(b"\r\n\r\n"), await caller.until(b"whole")]
    statuses = b"".join(told).count(b"HTTP/1.1 200 OK"), b"".join(told).count(b"HTTP/1.1 204 No Content")
    assert statuses == (4, 1)


async def test_who_waits_to_be_asked_for_the_body_is_asked(caller: Caller) -> None:
    caller.ask("POST /echo HTTP/1.1", "content-length: 5", "expect: 100-continue")
    assert await caller.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    caller.writer.write(b"hello")
    assert (await caller.until(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_stream_begins_with_its_first_part_and_not_with_its_last(caller: Caller) -> None:
    caller.ask("GET /streamed HTTP/1.1")
    first = await caller.until(f"{PARTS[0]}\r\n".encode())
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert PARTS[1].encode() not in first
    caller.app.state.go_on.set()
    await caller.until(f"{PARTS[1]}\r\n0\r\n\r\n".encode())


async def test_a_part_that_looks_like_a_head_is_not_kept(caller: Caller) -> None:
    caller.ask("GET /sized HTTP/1.1")
    await caller.until(PARTS[0].encode())
    caller.app.state.go_on.set()
    await caller.until(f"{PARTS[1]}.".encode())
    caller.ask("GET /plain HTTP/1.1")
    assert (await caller.until(b"whole")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_is_torn_is_ended(caller: Caller) -> None:
    caller.ask("GET /torn HTTP/1.1")
    async with asyncio.timeout(5):
        got = await caller.reader.read()
    assert PARTS[0].encode() in got
    assert not got.endswith(b"0\r\n\r\n")


async def test_what_is_no_request_is_refused(caller: Caller) -> None:
    caller.writer.write(b"nonsense\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await caller.reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
