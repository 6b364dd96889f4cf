"""The middleware in front of a real app on a real port: who comes through, with what, and for how long."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from authority.parts import issue, on_a_port
from chatkit_sessions import SessionMiddleware
from chatkit_sessions.redis import RedisVerifier
from chatkit_sessions.verifier import Verifier
from service.upstream.authority.sessions import Authority

TICK = 0.05


async def who(request: Request) -> Response:
    session = getattr(request.state, "chatkit_session", None)
    told = {name: value for name, value in request.headers.items() if name.startswith(("x-chatkit", "authorization"))}
    return JSONResponse({"user": session and session.user, "tenant": session and session.tenant, "headers": told})


async def stream(request: Request) -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        for number in range(400):
            yield f"data: {number}\n\n".encode()
            await asyncio.sleep(TICK)

    kind = request.query_params.get("kind", "text/event-stream")
    headers = {"content-length": "100000"} if "counted" in request.query_params else {}
    return StreamingResponse(ticks(), media_type=kind, headers=headers)


async def slow(_: Request) -> Response:
    await asyncio.sleep(20)
    return PlainTextResponse("late")


async def take(request: Request) -> Response:
    return JSONResponse({"bytes": len(await request.body())})


def guarded(verifier: Verifier) -> SessionMiddleware:
    routes = [
        Route("/chatkit", who, methods=["GET", "POST"]),
        Route("/stream", stream),
        Route("/slow", slow),
        Route("/upload", take, methods=["POST"]),
        Route("/health", who),
    ]
    return SessionMiddleware(Starlette(routes=routes), verifier, open_paths=["/health"], upload_paths=["/upload"])


@pytest.fixture
async def server(verifier: Verifier) -> AsyncIterator[httpx2.AsyncClient]:
    async with on_a_port(guarded(verifier), "off") as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


def bearer(session: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {session['client_secret']}"}


async def test_a_live_session_comes_through_and_its_secret_does_not(
    server: httpx2.AsyncClient, authority: Authority
) -> None:
    forged = {"X-ChatKit-User": "root", "x-chatkit-tenant": "globex", "X-CHATKIT-Anything": "1"}
    answer = await server.post("/chatkit", headers={**bearer(await issue(authority)), **forged})
    assert answer.json() == {"user": "ada", "tenant": "acme", "headers": {}}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer ek_nobody"}, {"authorization": "Basic ek_nobody"}])
async def test_nobody_else_does(server: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    for path in ("/chatkit", "/chatkit/", "//chatkit", "/nowhere", "/health/", "/health/../chatkit"):
        answer = await server.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "session_not_active"), path
        assert answer.headers["www-authenticate"] == 'Bearer realm="chatkit"'
        assert answer.headers["cache-control"] == "no-store"


async def test_two_credentials_are_none(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority)
    pair = [("authorization", f"Bearer {session['client_secret']}"), ("authorization", "Bearer ek_nobody")]
    assert (await server.get("/chatkit", headers=pair)).status_code == 401


async def test_an_open_path_is_open_and_headers_are_stripped_there_too(server: httpx2.AsyncClient) -> None:
    answer = await server.get("/health", headers={"x-chatkit-user": "root"})
    assert answer.json() == {"user": None, "tenant": None, "headers": {}}


async def test_over_the_limit(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority)
    answers = [await server.get("/chatkit", headers=bearer(session)) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["code"] == "session_rate_limited"


async def test_no_websocket_comes_through(by_redis: Verifier) -> None:
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        raise AssertionError

    await guarded(by_redis)({"type": "websocket", "path": "/health", "headers": []}, never, keep)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def cut(
    server: httpx2.AsyncClient, path: str, session: dict[str, Any], after: float, end: Any
) -> tuple[bytes, float]:
    """Read an answer, end the session *after* so many seconds; what came, and how long after the end it stopped."""
    got = b""
    ended: list[float] = []

    async def ending() -> None:
        await asyncio.sleep(after)
        await end()
        ended.append(time.monotonic())

    task = asyncio.create_task(ending())
    async with server.stream("GET", path, headers=bearer(session)) as answer:
        assert answer.status_code == 200
        async for part in answer.aiter_bytes():
            got += part
    stopped = time.monotonic()
    await task
    return got, stopped - ended[0]


async def test_a_logout_ends_a_running_stream_within_a_second(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority)
    got, late = await cut(server, "/stream", session, 0.5, lambda: authority.cancel("acme", session["id"]))
    assert late < 1.0
    *ticks, last = [event for event in got.decode().split("\n\n") if event]
    assert len(ticks) >= 5
    told = json.loads(last.removeprefix("data: "))
    assert told == {"type": "error", "code": "custom", "message": "This chat session has ended.", "allow_retry": False}


async def test_of_plain_text_the_stream_just_ends(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority)
    end = lambda: authority.cancel("acme", session["id"])  # noqa: E731
    got, late = await cut(server, "/stream?kind=text/plain", session, 0.3, end)
    assert late < 1.0
    assert b"session" not in got


async def test_an_answer_whose_length_was_told_is_cut_and_seen_to_be(
    server: httpx2.AsyncClient, authority: Authority
) -> None:
    session = await issue(authority)
    end = lambda: authority.cancel("acme", session["id"])  # noqa: E731
    with pytest.raises(httpx2.RemoteProtocolError):
        await cut(server, "/stream?kind=text/plain&counted", session, 0.3, end)


async def test_an_answer_that_has_not_begun_is_a_refusal(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority)
    asking = asyncio.create_task(server.get("/slow", headers=bearer(session)))
    await asyncio.sleep(0.3)
    await authority.cancel("acme", session["id"])
    started = time.monotonic()
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (401, "session_not_active")
    assert time.monotonic() - started < 1.0


async def test_a_stream_ends_with_its_session(server: httpx2.AsyncClient, authority: Authority) -> None:
    session = await issue(authority, expires_after={"anchor": "created_at", "seconds": 1})
    started = time.monotonic()
    async with server.stream("GET", "/stream", headers=bearer(session)) as answer:
        await answer.aread()
    assert time.monotonic() - started < 3


async def test_other_streams_go_on(server: httpx2.AsyncClient, authority: Authority) -> None:
    one, other = await issue(authority), await issue(authority)
    async with server.stream("GET", "/stream", headers=bearer(other)) as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        await cut(server, "/stream", one, 0.2, lambda: authority.cancel("acme", one["id"]))
        before = time.monotonic()
        got = b""
        while time.monotonic() - before < 0.7:
            got += await anext(parts)
        assert got.count(b"data:") >= 5
        assert b"error" not in got


async def test_an_app_that_will_not_end_sends_nothing_more(by_redis: Verifier, authority: Authority) -> None:
    async def stubborn(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(60):
            try:
                await asyncio.sleep(TICK)
            except asyncio.CancelledError:
                continue
            await send({"type": "http.response.body", "body": b"data: secret\n\n", "more_body": True})

    session = await issue(authority)
    async with (
        on_a_port(SessionMiddleware(stubborn, by_redis), "off") as url,
        httpx2.AsyncClient(base_url=url, timeout=30) as client,
    ):
        got, late = await cut(client, "/", session, 0.3, lambda: authority.cancel("acme", session["id"]))
    assert late < 1.0
    assert got.rstrip().endswith(b"}")


async def test_while_redis_is_away_nobody_comes_through(tmp_path: Any) -> None:
    verifier = RedisVerifier(f"unix://{tmp_path}/nobody.sock")
    async with on_a_port(guarded(verifier), "off") as url, httpx2.AsyncClient(base_url=url) as client:
        answer = await client.get("/chatkit", headers={"authorization": "Bearer ek_x"})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
        503,
        "verifier_unavailable",
        "1",
    )
    await verifier.aclose()


async def test_an_upload_is_bounded_by_the_grant(server: httpx2.AsyncClient, authority: Authority) -> None:
    off = await issue(authority)
    answer = await server.post("/upload", headers=bearer(off), content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (403, "upload_refused")
    uploads = {"file_upload": {"enabled": True, "max_file_size": 1}}
    session = await issue(authority, chatkit_configuration=uploads)
    answer = await server.post("/upload", headers=bearer(session), content=b"x" * 2**20)
    assert answer.json() == {"bytes": 2**20}

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**16

    for content in (b"x" * (2**20 + 2**17), unannounced()):
        try:
            answer = await server.post("/upload", headers=bearer(session), content=content)
        except (httpx2.WriteError, httpx2.ReadError):
            continue  # refused before all of it was sent
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_refused")


async def test_a_caller_that_leaves_ends_the_app(by_redis: Verifier, authority: Authority) -> None:
    ended = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(TICK)
        finally:
            ended.set()

    session = await issue(authority)
    async with on_a_port(SessionMiddleware(app, by_redis), "off") as url:
        async with httpx2.AsyncClient(base_url=url) as client, client.stream("GET", "/", headers=bearer(session)):
            pass
        await authority.cancel("acme", session["id"])
        await asyncio.wait_for(ended.wait(), 3)


async def test_followers_go_when_their_answers_end(by_redis: Verifier, authority: Authority) -> None:
    middleware = guarded(by_redis)
    session = await issue(authority, rate_limits={"max_requests_per_1_minute": 100})
    async with on_a_port(middleware, "off") as url, httpx2.AsyncClient(base_url=url) as client:
        for _ in range(30):
            await client.get("/chatkit", headers=bearer(session))
    assert not middleware._watch._followers


async def test_redis_that_stays_away_ends_streams_in_doubt(redis: Redis, authority: Authority) -> None:
    verifier = RedisVerifier(redis, deadline=0.2)
    session = await issue(authority)
    async with on_a_port(guarded(verifier), "off") as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:

        async def pause() -> None:
            await redis.client_pause(9000)

        got, late = await cut(client, "/stream", session, 0.3, pause)
    assert 3.5 < late < 8
    assert b"has ended" in got
    await redis.client_unpause()


async def test_a_server_of_one_tenant_is_no_others(by_redis: Verifier, authority: Authority) -> None:
    ours, theirs = await issue(authority), await authority.create("globex", {"user": "ada", "workflow": {"id": "wf"}})
    async with (
        on_a_port(SessionMiddleware(ok, by_redis, tenants=["acme"]), "off") as url,
        httpx2.AsyncClient() as client,
    ):
        assert (await client.get(url, headers=bearer(ours))).status_code == 200
        refused, unknown = [await client.get(url, headers=each) for each in (bearer(theirs), {})]
    assert (refused.status_code, refused.content) == (unknown.status_code, unknown.content) == (401, unknown.content)
    with pytest.raises(TypeError):
        SessionMiddleware(ok, by_redis, tenants="acme")


async def test_headers_with_underscores_are_stripped_too(by_redis: Verifier, authority: Authority) -> None:
    """WSGI and Django read `X_ChatKit_User` as `X-ChatKit-User`."""
    forged = {"x_chatkit_user": "mallory", "X-ChatKit_Tenant": "globex", "X-Chat": "kept"}
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await ok(scope, receive, send)

    async with on_a_port(SessionMiddleware(app, by_redis), "off") as url, httpx2.AsyncClient() as client:
        assert (await client.get(url, headers={**bearer(await issue(authority)), **forged})).status_code == 200
    assert b"x-chat" in seen
    assert not [name for name in seen if b"chatkit" in name.lower()]


@pytest.mark.parametrize("root", ["", "/api"])
async def test_an_upload_path_is_one_where_the_app_is_mounted_too(
    by_redis: Verifier, authority: Authority, root: str
) -> None:
    app = SessionMiddleware(ok, by_redis, upload_paths=["/upload"])
    session = await issue(authority)
    headers = [(b"authorization", bearer(session)["authorization"].encode())]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": f"{root}/upload", "root_path": root, "headers": headers}
    await app(scope, never, send)
    assert sent[0]["status"] == 403


async def test_what_nobody_guards_does_not_come_through(by_redis: Verifier) -> None:
    with pytest.raises(ValueError):
        await SessionMiddleware(ok, by_redis)({"type": "webtransport", "path": "/", "headers": []}, never, never)


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def never(*_: Any) -> Any:
    await asyncio.sleep(3600)
