"""What somebody sends who wants past the middleware, byte by byte, and who will not read or let go."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from authority.parts import KEY, issue, on_a_port
from chatkit_sessions import SessionMiddleware, Unavailable, UploadRefused, VerifiedSession
from chatkit_sessions.forwarded import NAMES, forwarded_session
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.redis import RedisVerifier
from chatkit_sessions.session import NotActive
from chatkit_sessions.watch import Watch
from service.upstream.authority.sessions import Authority


@dataclass
class Target:
    """An app that tells what reached it."""

    guard: SessionMiddleware = field(init=False)
    port: int = 0
    secret: str = ""
    reached: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def app(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached.append(f"{scope['method']} {scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-reached", b"1")]})
        try:
            for _ in range(2000 if scope["path"] == "/endless" else 1):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        finally:
            self.ended.set()
        await send({"type": "http.response.body", "body": b""})

    async def send(self, request: str) -> bytes:
        """Send lines as they stand, with HOST and BEARER filled in; what comes back within a moment."""
        text = request.replace("HOST", "Host: chat.example").replace("BEARER", f"Bearer {self.secret}")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text.replace("\n", "\r\n").encode())
        got = b""
        try:
            async with asyncio.timeout(0.4):
                while part := await reader.read(65536):
                    got += part
        except TimeoutError:
            pass
        writer.close()
        return got


@pytest.fixture
async def target(redis: Redis) -> AsyncIterator[Target]:
    target = Target()
    session = await issue(Authority(redis), rate_limits={"max_requests_per_1_minute": 1000})
    target.secret = session["client_secret"]
    target.guard = SessionMiddleware(target.app, RedisVerifier(redis), open_paths=["/health"], upload_paths=["/upload"])
    async with on_a_port(target.guard, "off") as url:
        target.port = int(url.rpartition(":")[2])
        yield target


PAST = {
    "nothing": "GET /a HTTP/1.1\nHOST\nConnection: close\n\n",
    "HTTP/1.0": "GET /a HTTP/1.0\n\n",
    "HEAD": "HEAD /a HTTP/1.1\nHOST\nConnection: close\n\n",
    "OPTIONS": "OPTIONS /a HTTP/1.1\nHOST\nConnection: close\n\n",
    "OPTIONS *": "OPTIONS * HTTP/1.1\nHOST\nConnection: close\n\n",
    "the same credential twice": (
        "GET /a HTTP/1.1\nHOST\nAuthorization: BEARER\nauthorization: BEARER\nConnection: close\n\n"
    ),
    "two in one": "GET /a HTTP/1.1\nHOST\nAuthorization: Bearer ek_x, BEARER\nConnection: close\n\n",
    "a tab": "GET /a HTTP/1.1\nHOST\nAuthorization: Bearer\tek_x\nConnection: close\n\n",
    "a folded line": "GET /a HTTP/1.1\nHOST\nAuthorization: Bearer\n ek_x\nConnection: close\n\n",
    "a blank before the colon": "GET /a HTTP/1.1\nHOST\nAuthorization : BEARER\nConnection: close\n\n",
    "an open path and up": "GET /health/../a HTTP/1.1\nHOST\nConnection: close\n\n",
    "the same, encoded": "GET /health%2f..%2fa HTTP/1.1\nHOST\nConnection: close\n\n",
    "an open path and a parameter": "GET /health;/a HTTP/1.1\nHOST\nConnection: close\n\n",
    "an open path and NUL": "GET /health%00 HTTP/1.1\nHOST\nConnection: close\n\n",
    "an open path and a slash": "GET /health/ HTTP/1.1\nHOST\nConnection: close\n\n",
    "an address": "GET http://chat.example/health/ HTTP/1.1\nHOST\nConnection: close\n\n",
    "a WebSocket at an open path": (
        "GET /health HTTP/1.1\nHOST\nConnection: Upgrade\nUpgrade: websocket\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
    ),
    "two lengths": (
        "POST /a HTTP/1.1\nHOST\nAuthorization: BEARER\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n"
        "GET /b HTTP/1.1\nHOST\n\n"
    ),
    "a request in a body": (
        "POST /a HTTP/1.1\nHOST\nContent-Length: 45\n\nGET /b HTTP/1.1\nHOST\nAuthorization: BEARER\n\n"
    ),
    "a body that never comes": "POST /a HTTP/1.1\nHOST\nContent-Length: 1000000\n\nabc",
    "an upload with a slash": "PUT /upload/ HTTP/1.1\nHOST\nAuthorization: BEARER\nContent-Length: 1\n\nx",
    "an upload, encoded": "PUT /%75pload HTTP/1.1\nHOST\nAuthorization: BEARER\nContent-Length: 1\n\nx",
    "an upload below": "PUT /upload/7 HTTP/1.1\nHOST\nAuthorization: BEARER\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n",
}


async def test_nothing_gets_past(target: Target) -> None:
    answers = await asyncio.gather(*(target.send(request) for request in PAST.values()))
    for name, answer in zip(PAST, answers, strict=True):
        assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400", b"HTTP/1.1 403")), (name, answer)
    assert target.reached == []


async def test_each_request_of_a_connection_is_asked_for_itself(target: Target) -> None:
    answer = await target.send(
        "GET /a HTTP/1.1\nHOST\nauthorization:bEaReR  BEARER\n\nGET /b HTTP/1.1\nHOST\n\n".replace(
            "bEaReR  BEARER", f"bEaReR   {target.secret}  "
        )
    )
    assert target.reached == ["GET /a"]
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"HTTP/1.1 401")) == (1, 1)


async def test_who_does_not_read_is_not_waited_for(target: Target, redis: Redis) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1024)
    writer.write(f"GET /endless HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.secret}\r\n\r\n".encode())
    await asyncio.sleep(0.5)
    assert not target.ended.is_set()
    session = await RedisVerifier(redis).verify(target.secret)
    await Authority(redis).cancel("acme", session.id)
    await asyncio.wait_for(target.ended.wait(), 2.5)
    assert not target.guard._watch._followers
    writer.close()


async def test_thousands_are_heard_of_within_a_second(redis: Redis) -> None:
    authority = Authority(redis)
    made = [await issue(authority, f"user-{number}") for number in range(2000)]
    watch, ended = Watch(RedisVerifier(redis).ended), set[str]()
    for session in made:
        watch.follow(session["id"], lambda identity=session["id"]: ended.add(identity))  # type: ignore[misc]
    gone = {session["id"] for session in made[::20]}
    await asyncio.gather(*(authority.cancel("acme", identity) for identity in gone))
    await asyncio.sleep(0.95)
    assert ended == gone
    await watch.aclose()


async def test_a_watch_that_fails_leaves_nobody_unwatched(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_ids: Collection[str]) -> set[str]:
        raise KeyError("nonsense")

    watch, ended = Watch(broken), list[str]()
    watch.follow("one", lambda: ended.append("one"))
    await asyncio.sleep(0.5)
    assert ended == ["one"]
    assert watch._task is not None
    await asyncio.wait([watch._task])
    assert isinstance(watch._task.exception(), KeyError)
    del caplog


async def test_an_authority_that_talks_nonsense_grants_nothing(redis: Redis) -> None:
    made = await issue(Authority(redis))
    session: VerifiedSession = await RedisVerifier(redis).verify(made["client_secret"])
    for body in (b"{}", b'{"granted": 1}', b'{"ended": null}', b'{"granted": "yes", "ended": "no"}'):

        async def nonsense(_scope: Any, _receive: Any, send: Any, body: bytes = body) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        async with on_a_port(nonsense, "off") as url, httpx2.AsyncClient() as client:
            verifier = HTTPVerifier(url, KEY, client=client)
            with pytest.raises(UploadRefused):
                await verifier.take_upload(session, 1)
            with pytest.raises(Unavailable):
                await verifier.ended(["cksess_1"])


async def test_a_request_is_one_round_trip_to_redis(target: Target, redis: Redis) -> None:
    async def reads() -> int:
        return int((await redis.info("stats"))["total_reads_processed"])

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{target.port}") as client:
        headers = {"authorization": f"Bearer {target.secret}"}
        await client.get("/a", headers=headers)
        before = await reads()
        for _ in range(200):
            assert (await client.get("/a", headers=headers)).status_code == 200
        took = await reads() - before - 1
    assert 200 <= took <= 210, "one each; a few of the watch's"


def test_a_proxys_headers_are_taken_whole_or_not_at_all() -> None:
    whole = [(b"X-ChatKit-" + name.title(), b"4000000000") for name in NAMES]
    assert forwarded_session(whole).user == "4000000000"
    assert forwarded_session([*whole, (b"x-chatkit-else", b"root")]).tenant == "4000000000"
    for number, (name, _) in enumerate(whole):
        rest = whole[:number] + whole[number + 1 :]
        for bent in (rest, [*rest, (name, b"")], [*whole, (name.lower(), b"root")]):
            with pytest.raises(NotActive):
                forwarded_session(bent)
    for expires_at in (b"soon", b"-1", b"1", b"1e9"):
        with pytest.raises(NotActive):
            forwarded_session([*whole[:-1], (b"x-chatkit-expires-at", expires_at)])
