"""A server that plays a script on a real socket, and OpenAI's sessions as its client."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Literal

import orjson
import pytest
from pydantic import SecretStr

from service.contract import CreateSession
from service.errors import Refusal
from service.observe.metrics import Metrics
from service.session import Account, Minted
from service.transport import make_transport
from service.upstream.call import MAX_CREATES, Patience
from service.upstream.openai import OpenAISessions

KEY = "sk-hunter2"
BODY: CreateSession = {
    "user": "acme:ädä",
    "workflow": {"id": "wf_1", "state_variables": {"pro": True}},
    "expires_after": {"anchor": "created_at", "seconds": 300},
}
SESSION = {"id": "cksess_1", "object": "chatkit.session", "client_secret": "ek_1", "expires_at": 1_800_000_300}


@dataclass(frozen=True)
class Play:
    """What the server does with one request: read it or not, send bytes, and then."""

    answer: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    read: bool = True
    times: int = 1
    """How often the answer's bytes are sent."""
    pause: float = 0.0
    """Seconds between two times."""


@dataclass
class Received:
    """A request as it came over the wire."""

    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upstream:
    """A server with a script; what it received, and how many connections and bytes there were."""

    plays: list[Play]
    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    read: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a request was received."""
    serving: list["asyncio.Task[None] | None"] = field(default_factory=list)
    stop_listening: Callable[[], None] = lambda: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.append(asyncio.current_task())
        try:
            while self.plays and await self.play(self.plays.pop(0), reader, writer) == "keep":
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def play(self, play: Play, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        if play.read:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(request.split(" ")[1], headers, body))
            self.read.set()
        for _ in range(play.times if play.answer else 0):
            writer.write(play.answer)
            await writer.drain()
            self.sent += len(play.answer)
            await asyncio.sleep(play.pause)
        if play.then == "hang":
            await reader.read()
        if play.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return play.then


@asynccontextmanager
async def scripted(*plays: Play, ssl: SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Serve the plays, one a request, on a free port of the loopback."""
    upstream = Upstream(list(plays))
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=ssl)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.stop_listening = server.close
    try:
        yield upstream
    finally:
        server.close()
        await asyncio.gather(*filter(None, upstream.serving), return_exceptions=True)


def answer(status: int, body: bytes | Any = b"", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def says(status: int, body: bytes | Any = b"", **headers: str) -> Play:
    return Play(answer(status, body, **headers))


def ends(status: int, body: bytes | Any = b"") -> Play:
    """Answer, and end the connection: what is played later comes on a new one."""
    return Play(answer(status, body, connection="close"), "close")


class Client:
    """What is under test, with an account at the scripted server."""

    def __init__(
        self,
        port: int,
        *,
        timeout: float = 10.0,
        patience: Patience | None = None,
        creates: int = MAX_CREATES,
        keys: tuple[str, ...] = (KEY,),
        **account: Any,
    ) -> None:
        self.metrics = Metrics()
        self.metrics.know(["acme"])
        self.transport = make_transport()
        self.waits: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while it waits before a retry."""
        self.now = 0.0
        """Seconds on the clock that only waits move: deadlines and breakers go by it."""
        self.sessions = OpenAISessions(
            self.transport,
            self.metrics,
            patience or Patience(call=timeout),
            clock=lambda: 1_800_000_000.5 + self.now,
            monotonic=lambda: self.now,
            sleep=self.wait,
            creates=creates,
        )
        url = f"http://127.0.0.1:{port}/v1"
        self.account = Account("acme", "openai", url, tuple(map(SecretStr, keys)), **account)

    async def wait(self, seconds: float) -> None:
        """Let the time pass without waiting for it."""
        self.waits.append(seconds)
        self.meanwhile()
        self.now += seconds
        await asyncio.sleep(0)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"chatkit_mint_{name}_total", labels) or 0.0

    @property
    def orphans(self) -> float:
        return self.count("orphans", tenant="acme")

    async def create(self) -> Minted:
        return await self.sessions.create(self.account, BODY)

    async def refused(self, doing: Literal["create", "cancel"] = "create", session_id: str = "cksess_1") -> Refusal:
        """The refusal, which never says the key."""
        with pytest.raises(Refusal) as refused:
            await (self.create() if doing == "create" else self.sessions.cancel(self.account, session_id))
        assert KEY not in f"{refused.value} {refused.value!r} {refused.value.detail} {refused.value.reason}"
        return refused.value


@asynccontextmanager
async def playing(*plays: Play, **account: Any) -> AsyncIterator[tuple[Client, Upstream]]:
    """A client of a server that plays these; *account* holds its timeout too."""
    async with scripted(*plays) as upstream:
        client = Client(upstream.port, **account)
        try:
            yield client, upstream
        finally:
            await client.transport.aclose()
