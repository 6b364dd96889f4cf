"""The example server behind a proxy that asks /v1/authorize: what reaches the app, and what the client sees."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis
from server import GRANTS, create_app
from starlette.middleware.cors import CORSMiddleware
from stores import Files, SqliteStore

from api.parts import RedisServer
from authority.parts import on_a_port
from chatkit_sessions.forwarded import ForwardedMiddleware
from chatkit_sessions.redis import RedisVerifier
from selfhosted.full import Full
from selfhosted.parts import LONG, SIGNERS, Person, body, events, mint_app, read_on_and_leave, said
from selfhosted.proxies import PROXIES

pytestmark = pytest.mark.process

ORIGIN = "https://page.example"
FIVE = ("user", "tenant", "session", "workflow", "expires-at")
FORGED = [
    *((f"X-ChatKit-{name}", "root") for name in FIVE),
    *((f"x-chatkit-{name}", "123") for name in FIVE),
    *((f"X_ChatKit_{name}", "root") for name in ("User", "Tenant")),
]


@dataclass
class Street:
    """What stands behind one another: a proxy, the service, the app, and Redis behind these two."""

    proxy: httpx2.AsyncClient
    mint: httpx2.AsyncClient
    server: Full
    redis: RedisServer
    seen: list[dict[str, list[str]]] = field(default_factory=list)
    """The headers of each request that reached the app."""

    async def someone(self, tenant: str = "acme", subject: str = "alice", plan: str = "") -> Person:
        return await Person(self.mint, self.proxy, SIGNERS[tenant], subject, plan).arrive()


def recording(app: Any, seen: list[dict[str, list[str]]]) -> Any:
    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode().lower(), []).append(value.decode())
        seen.append(headers)
        await app(scope, receive, send)

    return recorded


@pytest.fixture(params=PROXIES)
async def street(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Street]:
    server, seen = RedisServer(tmp_path / "redis"), list[dict[str, list[str]]]()
    store, files = SqliteStore(":memory:"), Files(tmp_path, "http://chat.example/upload")
    async with Redis(unix_socket_path=str(server.socket), max_connections=64) as redis:
        verifier = RedisVerifier(redis)
        full = Full(store, files, verifier=verifier, session_of=lambda session: session)
        guard = ForwardedMiddleware(create_app(full, files), verifier, grants=GRANTS, upload_paths=["/upload"])
        app = recording(CORSMiddleware(guard, [ORIGIN], ["POST", "PUT"], ["authorization"]), seen)
        async with (
            on_a_port(mint_app(tmp_path / "config", redis)) as mint,
            on_a_port(app, "off") as chat,
            httpx2.AsyncClient(base_url=mint, timeout=30) as client,
        ):
            places = [each.removeprefix("http://") for each in (mint, chat)]
            home = tmp_path / "proxy"
            home.mkdir()
            with PROXIES[request.param](home, *places) as proxy:
                async with proxy:
                    yield Street(proxy, client, full, server, seen)
    store.close()
    server.stop()


async def test_who_is_asking_is_what_the_proxy_says(street: Street) -> None:
    alice, bob = await street.someone(), await street.someone("globex", "böb smith")
    thread = await alice.thread()
    assert await alice.threads() == [thread]
    assert await bob.threads() == []
    assert (await bob.send("threads.get_by_id", thread_id=thread)).status_code == 404
    street.seen.clear()
    for person in (alice, bob):
        forged = [*person.headers.items(), *FORGED]
        answer = await street.proxy.post("/chatkit", headers=forged, content=body("threads.list"))
        assert answer.status_code == 200, answer.text
    hers, his = ({name: told for name, told in each.items() if "chatkit" in name} for each in street.seen)
    assert hers == {
        "x-chatkit-user": ["acme:alice"],
        "x-chatkit-tenant": ["acme"],
        "x-chatkit-session": [alice.session["id"]],
        "x-chatkit-workflow": ["wf_acme"],
        "x-chatkit-expires-at": [str(alice.session["expires_at"])],
    }
    assert his["x-chatkit-user"] == ["globex:b%C3%B6b%20smith"]
    assert not any("authorization" in each for each in street.seen)
    assert (await bob.say("hi"))[-1]["item"]["content"][0]["text"] == "globex:böb smith said: hi "


async def test_nobody_else_reaches_the_app(street: Street) -> None:
    alice = await street.someone()
    secret = alice.session["client_secret"]
    for credential in ([], ["Bearer ek_nobody"], ["Basic abc"], [secret], ["Bearer ek_x", f"Bearer {secret}"]):
        headers = [*(("authorization", each) for each in credential), *FORGED]
        for method, path in (("POST", "/chatkit"), ("GET", "/"), ("PUT", "/upload"), ("GET", "//chatkit/..%2f")):
            answer = await street.proxy.request(method, path, headers=headers)
            assert answer.status_code in (400, 401), (credential, path)
            if answer.status_code == 401:
                assert answer.json()["code"] == "session_not_active"
                (challenge,) = answer.headers.get_list("www-authenticate")
                assert challenge.startswith("Bearer")
                assert answer.headers["cache-control"] == "no-store"
    await alice.leave()
    assert (await alice.send("threads.list")).status_code == 401
    assert street.seen == []


async def test_preflights_pass_and_say_nobodys_name(street: Street) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    answer = await street.proxy.options("/chatkit", headers=[*asked.items(), *FORGED])
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    answer = await street.proxy.options("/chatkit", headers=FORGED)
    assert answer.status_code == 401, "by the app: no proxy has named anybody"
    assert len(street.seen) == 2
    assert not any(name.startswith("x-chatkit") for each in street.seen for name in each)


async def test_over_the_limit_is_told_as_such(street: Street) -> None:
    alice = await street.someone(plan="ten")
    answers = [await alice.send("threads.list") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["code"] == "session_rate_limited"
    assert len(street.seen) == 10


async def test_while_redis_is_away_nobody_comes_through(street: Street) -> None:
    alice = await street.someone()
    street.redis.stop()
    answer = await alice.send("threads.list")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert street.seen == []
    assert answer.json()["code"] == "store_unavailable"
    street.redis.start()  # empty: nobody is known any more
    assert (await alice.send("threads.list")).status_code == 401


async def test_a_logout_ends_what_is_streamed_through_the_proxy(street: Street) -> None:
    street.server.pause = 0.05
    alice = await street.someone()
    content = body("threads.create", input=said(LONG))
    async with street.proxy.stream("POST", "/chatkit", headers=alice.headers, content=content) as answer:
        got, late = await read_on_and_leave(answer, alice)
    assert late < 1.0
    assert events(got)[-1]["message"] == "This chat session has ended."


async def test_uploads_are_counted_though_the_headers_do_not_tell_of_them(street: Street) -> None:
    without, alice = await street.someone(), await street.someone("acme", "bob", "uploads")
    params = {"name": "a.txt", "mime_type": "text/plain"}
    assert (await without.send("attachments.create", size=1, **params)).status_code == 403
    assert (await alice.send("attachments.create", size=2**20 + 1, **params)).status_code == 403
    answers = [await alice.send("attachments.create", size=2**20, **params) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 403]


@pytest.mark.parametrize("name", PROXIES)
async def test_no_other_answer_is_a_yes(tmp_path: Path, name: str) -> None:
    """Whatever stands in the service's place says: only 2xx opens, and a proxy that gets no answer stays shut."""
    status, reached = 0, []

    async def odd(_scope: Any, _receive: Any, send: Any) -> None:
        if status == 0:
            await asyncio.sleep(60)
        headers = [(b"location", b"/"), (b"x-chatkit-user", b"root")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        reached.append(status)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with on_a_port(odd, "off") as authorize, on_a_port(app, "off") as chat:
        with PROXIES[name](tmp_path, *(each.removeprefix("http://") for each in (authorize, chat))) as proxy:
            async with proxy:
                for status in (302, 304, 400, 403, 404, 418, 500, 502, 503):
                    assert not (await proxy.get("/chatkit")).is_success, status
                status = 0
                started = time.monotonic()
                assert (await proxy.get("/chatkit")).status_code >= 500
                assert time.monotonic() - started < 6
    assert reached == []
