"""Verifying sessions: introspection with a service key, forward authentication with the secret itself."""

import asyncio
import statistics
import time
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.identity.service_keys import make_service_key
from service.upstream.authority.sessions import Authority
from unit.http.conftest import Open
from unit.http.house import Browser, Login, everything, refused

VERIFY, READ, GLOBEX, SHARED = (make_service_key() for _ in range(4))
SESSIONS = "/v1/chatkit/sessions"


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    keys = [
        {"name": "chat", "sha256": VERIFY[1], "may": ["verify"]},
        {"name": "support", "sha256": READ[1], "may": ["read"]},
        {"name": "all", "sha256": SHARED[1], "may": ["verify"]},
    ]
    other = [
        {"name": "chat", "sha256": GLOBEX[1], "may": ["verify"]},
        {"name": "all", "sha256": SHARED[1], "may": ["verify"]},
    ]
    return house(login.tenant(service_keys=keys, user="claims.sub"), login.tenant("globex", service_keys=other))


async def issue(redis: Redis, tenant: str = "acme", user: str = "ada", **wishes: Any) -> dict[str, Any]:
    body = {"user": user, "workflow": {"id": "wf_support", "state_variables": {"plan": "pro"}}, **wishes}
    return await Authority(redis).create(tenant, body)


async def verify(app: Starlette, secret: str, key: str | None = VERIFY[0], **fields: str) -> httpx2.Response:
    server = Browser(app, origin=None, token=key)
    return await server.ask("POST", f"{SESSIONS}/verify", data={"token": secret, **fields})


async def authorize(app: Starlette, secret: str | None, path: str = "", method: str = "GET") -> httpx2.Response:
    return await Browser(app, origin=None, token=secret).ask(method, f"/v1/authorize{path}")


async def test_a_live_secret_is_told_with_its_session(app: Starlette, redis: Redis) -> None:
    session = await issue(redis)
    secret = session.pop("client_secret")
    answer = await verify(app, secret)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "active": True,
        "token_type": "chatkit_session",
        "sub": "ada",
        "exp": session["expires_at"],
        "tenant": "acme",
        "requests": 1,
        "session": session,
    }
    assert secret not in answer.text


async def test_a_proxy_is_told_who_is_asking(app: Starlette, redis: Redis) -> None:
    session = await issue(redis, user="ädä\r\nX-ChatKit-Tenant: globex %41")
    for path, method in (("", "GET"), ("/chatkit", "POST"), ("/a/b/c", "DELETE")):
        answer = await authorize(app, session["client_secret"], path, method)
        assert (answer.status_code, answer.content) == (200, b"")
        told = {name: value for name, value in answer.headers.items() if name.startswith("x-chatkit-")}
        assert told == {
            "x-chatkit-user": "%C3%A4d%C3%A4%0D%0AX-ChatKit-Tenant:%20globex%20%2541",
            "x-chatkit-tenant": "acme",
            "x-chatkit-session": session["id"],
            "x-chatkit-workflow": "wf_support",
            "x-chatkit-expires-at": str(session["expires_at"]),
        }
        assert unquote(told["x-chatkit-user"]) == "ädä\r\nX-ChatKit-Tenant: globex %41"


async def dead(redis: Redis) -> dict[str, str]:
    """Secrets that are good for nothing, by what is wrong with them."""
    authority = Authority(redis)
    cancelled = await issue(redis)
    await authority.cancel("acme", cancelled["id"])
    past = Authority(redis, clock=lambda: time.time() - 700)
    expired = await past.create("acme", {"user": "ada", "workflow": {"id": "wf"}})
    live = await issue(redis)
    return {
        "cancelled": cancelled["client_secret"],
        "expired": expired["client_secret"],
        "unknown": "ek_" + "A" * 43,
        "its id": live["id"],
        "a part": live["client_secret"][:-1],
        "more": live["client_secret"] + "=",
        "malformed": "{}",
        "not ascii": "ek_ä",
        "long": "ek_" + "x" * 4000,
    }


async def test_what_is_not_live_reads_the_same_whatever_it_is(app: Starlette, redis: Redis) -> None:
    answers, introspected = {}, {}
    for name, secret in (await dead(redis)).items():
        if name != "not ascii":  # no header can carry it
            answer = await authorize(app, secret)
            assert refused(answer) == (401, "session_not_active")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            body = answer.json()
            body.pop("request_id")
            answers[name] = body
        answer = await verify(app, secret)
        introspected[name] = (answer.status_code, answer.json())
    assert len({repr(each) for each in answers.values()}) == 1, answers
    assert {repr(each) for each in introspected.values()} == {repr((200, {"active": False}))}, introspected
    assert refused(await authorize(app, None)) == (401, "session_not_active")


async def test_what_is_not_live_takes_the_same_time_whatever_it_is(app: Starlette, redis: Redis) -> None:
    secrets = {
        name: secret for name, secret in (await dead(redis)).items() if name in ("cancelled", "expired", "unknown")
    }
    secrets["malformed"] = "x"
    took: dict[str, list[float]] = {name: [] for name in secrets}
    for _ in range(150):
        for name, secret in secrets.items():
            started = time.perf_counter()
            await authorize(app, secret)
            took[name].append(time.perf_counter() - started)
    # The quick ones: the slow ones tell how busy the machine is.
    quick = {name: statistics.quantiles(times, n=10)[0] for name, times in took.items()}
    assert max(quick.values()) < 1.3 * min(quick.values()), quick


async def test_each_asks_about_its_own_tenants_sessions_alone(app: Starlette, redis: Redis) -> None:
    ours, theirs = await issue(redis), await issue(redis, "globex")
    assert (await verify(app, theirs["client_secret"])).json() == {"active": False}
    assert (await verify(app, theirs["client_secret"], GLOBEX[0])).json()["tenant"] == "globex"
    for session in (ours, theirs):
        assert (await verify(app, session["client_secret"], SHARED[0])).json()["active"]
    server = Browser(app, origin=None, token=VERIFY[0])
    answer = await server.ask("POST", f"{SESSIONS}/ended", json={"ids": [ours["id"], theirs["id"], "cksess_x"]})
    assert answer.json() == {"ended": sorted([theirs["id"], "cksess_x"])}
    uploads: dict[str, Any] = {"chatkit_configuration": {"file_upload": {"enabled": True}}}
    for tenant, granted in (("acme", True), ("globex", False)):
        session = await issue(redis, tenant, **uploads)
        answer = await server.ask("POST", f"{SESSIONS}/{session['id']}/uploads", json={"size": 1})
        assert answer.json() == {"granted": granted}


async def test_a_proxy_says_whose_sessions_it_lets_through(app: Starlette, redis: Redis) -> None:
    secret = (await issue(redis, "globex"))["client_secret"]
    for named, status in (("globex", 200), ("acme, globex", 200), ("acme", 401), ("", 401), (",", 401), ("glob", 401)):
        answer = await Browser(app, origin=None, token=secret, tenant=named).ask("GET", "/v1/authorize")
        assert answer.status_code == status, named
    assert (await authorize(app, secret)).status_code == 200


async def test_a_foreign_question_counts_nothing(app: Starlette, redis: Redis) -> None:
    session = await issue(redis, rate_limits={"max_requests_per_1_minute": 2})
    for _ in range(5):
        assert (await verify(app, session["client_secret"], GLOBEX[0])).json() == {"active": False}
    assert (await verify(app, session["client_secret"])).json()["requests"] == 1


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 401, "missing_credentials"), ("cmk_wrong", 401, "invalid_token"), (READ[0], 403, "policy_denied")],
    ids=["none", "wrong", "without the right"],
)
async def test_only_a_key_with_the_right_may_ask(
    app: Starlette, redis: Redis, key: str | None, status: int, code: str
) -> None:
    session = await issue(redis)
    assert refused(await verify(app, session["client_secret"], key)) == (status, code)
    for path, body in (("ended", {"ids": []}), (f"{session['id']}/uploads", {"size": 1})):
        answer = await Browser(app, origin=None, token=key).ask("POST", f"{SESSIONS}/{path}", json=body)
        assert refused(answer) == (status, code)


async def test_the_eleventh_request_of_a_minute_is_one_too_many(app: Starlette, redis: Redis) -> None:
    session = await issue(redis)
    answers = await asyncio.gather(*(authorize(app, session["client_secret"]) for _ in range(15)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 5
    late = await authorize(app, session["client_secret"])
    assert refused(late) == (429, "session_rate_limited")
    assert 55 <= int(late.headers["retry-after"]) <= 60
    assert refused(await verify(app, session["client_secret"])) == (429, "session_rate_limited")
    assert (await verify(app, session["client_secret"], requests="0")).json()["requests"] == 0, "a look costs nothing"


async def test_requests_are_granted_ahead_up_to_the_limit(app: Starlette, redis: Redis) -> None:
    session = await issue(redis, rate_limits={"max_requests_per_1_minute": 7})
    secret = session["client_secret"]
    assert (await verify(app, secret, requests="5")).json()["requests"] == 5
    assert (await verify(app, secret, requests="5")).json()["requests"] == 2
    assert refused(await verify(app, secret, requests="1")) == (429, "session_rate_limited")


@pytest.mark.parametrize("requests", ["-1", "1001", "x", "", "1.5", "٣", "9" * 5000])
async def test_a_number_of_requests_that_is_none(app: Starlette, redis: Redis, requests: str) -> None:
    session = await issue(redis)
    answer = await verify(app, session["client_secret"], requests=requests)
    assert refused(answer) == (400, "invalid_request")
    assert answer.json()["field"] == "requests"


async def test_uploads_are_granted_by_switch_size_and_number(app: Starlette, redis: Redis) -> None:
    server = Browser(app, origin=None, token=VERIFY[0])

    async def take(session: dict[str, Any], size: int) -> bool:
        answer = await server.ask("POST", f"{SESSIONS}/{session['id']}/uploads", json={"size": size})
        granted: bool = answer.json()["granted"]
        return granted

    off = await issue(redis)
    assert not await take(off, 1)
    limits = {"enabled": True, "max_file_size": 1, "max_files": 3}
    session = await issue(redis, chatkit_configuration={"file_upload": limits})
    assert not await take(session, 2**20 + 1)
    granted = await asyncio.gather(*(take(session, 2**20) for _ in range(8)))
    assert sum(granted) == 3
    await Authority(redis).cancel("acme", session["id"])
    fresh = await issue(redis, chatkit_configuration={"file_upload": limits})
    assert await take(fresh, 0)
    await Authority(redis).cancel("acme", fresh["id"])
    assert not await take(fresh, 0), "it was cancelled"


async def test_a_logout_ends_it_at_once(app: Starlette, login: Login) -> None:
    browser = Browser(app, origin=None, token=login.token())
    secret = (await browser.mint()).json()["client_secret"]
    assert (await authorize(app, secret)).status_code == 200
    assert (await browser.ask("POST", "/v1/logout")).json() == {"cancelled": 1, "pending": 0}
    assert refused(await authorize(app, secret)) == (401, "session_not_active")
    assert (await verify(app, secret)).json() == {"active": False}


async def test_no_secret_is_in_redis_or_in_an_answer(app: Starlette, redis: Redis) -> None:
    session = await issue(redis)
    secret = session["client_secret"]
    answers = [await authorize(app, secret), await verify(app, secret)]
    assert secret.removeprefix("ek_mint_") not in await everything(redis)
    assert not any(secret in answer.text + str(answer.headers) for answer in answers)
