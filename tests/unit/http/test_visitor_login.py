"""A visit ends: by logging out, or by logging in. Nothing of it comes back."""

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.identity.visitors import cookie_name
from service.upstream.authority.sessions import Authority
from unit.http.conftest import Open
from unit.http.house import (
    APP,
    LOGOUT,
    MAX_AGE,
    SESSIONS,
    WWW,
    Browser,
    Clock,
    Login,
    cookie_from,
    cookies_of,
    refused,
    visitor_of,
)

NAME = cookie_name("acme")
FORGET = (NAME, "", 0)
VISITORS = {"origins": [WWW]}


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    cookie = {"name": "acme_token", "origins": [APP]}
    denied = {"name": "banned", "when": "has(claims.banned)", "deny": "You may not"}
    return house(login.tenant(visitors=VISITORS, cookie=cookie, rules=[denied]))


@pytest.fixture
def browser(app: Starlette) -> Browser:
    return Browser(app)


async def status(redis: Redis, session_id: str) -> str:
    session = await Authority(redis).find(session_id)
    assert session
    return str(session["status"])


async def test_logging_out_ends_the_visit(browser: Browser, redis: Redis) -> None:
    sessions = [(await browser.mint()).json()["id"] for _ in range(2)]
    answer = await browser.log_out()
    assert answer.json() == {"cancelled": 2, "pending": 0}
    assert cookies_of(answer) == [FORGET]
    assert [await status(redis, each) for each in sessions] == ["cancelled", "cancelled"]
    assert browser.visitor() is None


async def test_the_next_visit_is_somebody_elses(browser: Browser) -> None:
    user = await browser.user()
    await browser.log_out()
    assert await browser.user() != user


async def test_logging_out_is_one_visitors_alone(app: Starlette, browser: Browser) -> None:
    other = Browser(app)
    minted = (await other.mint()).json()["id"]
    await browser.mint()
    await browser.log_out()
    assert await other.listed() == [minted]
    assert (await other.mint()).status_code == 200


async def test_a_logged_out_cookie_mints_nothing(browser: Browser) -> None:
    user, kept = await browser.user(), browser.visitor()
    await browser.log_out()
    assert kept
    browser.carry(kept)
    answer = await browser.mint()
    assert refused(answer) == (401, "login_revoked")
    assert cookies_of(answer) == [FORGET]
    assert await browser.user() != user  # without the cookie, somebody new


@pytest.mark.parametrize("age", [0, MAX_AGE / 2 + 60, MAX_AGE - 60])
async def test_an_old_copy_of_a_logged_out_cookie_is_never_renewed(browser: Browser, clock: Clock, age: float) -> None:
    await browser.mint()
    old = browser.visitor()
    assert old
    clock.forward(MAX_AGE / 2 + 1)
    assert await browser.user()
    assert browser.visitor() != old  # renewed
    await browser.log_out()
    clock.forward(max(0.0, age - MAX_AGE / 2 - 1))
    for method, path, code in (
        ("POST", SESSIONS, 401),
        ("GET", SESSIONS, 401),
        ("HEAD", SESSIONS, 401),
        ("POST", f"{SESSIONS}/cksess_1/cancel", 401),
        ("POST", LOGOUT, 200),
        ("POST", SESSIONS, 401),
        ("PUT", SESSIONS, 405),
        ("POST", "/nowhere", 404),
    ):
        browser.carry(old)
        answer = await browser.ask(method, path)
        assert answer.status_code == code, (method, path, answer.text)
        assert cookies_of(answer) in ([], [FORGET])


@pytest.mark.parametrize("ahead", [0, 20], ids=["clocks agree", "our clock is ahead of Redis's"])
async def test_logging_out_with_an_old_copy_ends_the_renewed_one(browser: Browser, clock: Clock, ahead: float) -> None:
    """Two tabs: one mints and is handed a renewed cookie, the other logs out with what it had."""
    clock.forward(ahead)
    old = cookie_from(clock() - MAX_AGE / 2 - 60)
    browser.carry(old)
    await browser.mint()
    renewed = browser.visitor()
    assert renewed != old
    assert renewed
    browser.carry(old)
    assert (await browser.log_out()).json()["cancelled"] == 1
    for kept in (old, renewed):
        browser.carry(kept)
        assert refused(await browser.mint()) == (401, "login_revoked")


async def test_logging_out_twice_is_no_error(browser: Browser) -> None:
    await browser.mint()
    kept = browser.visitor()
    assert kept
    await browser.log_out()
    browser.carry(kept)
    answer = await browser.log_out()
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 0, "pending": 0})
    assert cookies_of(answer) == [FORGET]


async def test_a_visitor_who_logs_in_is_the_user(browser: Browser, login: Login) -> None:
    visited = (await browser.mint()).json()["id"]
    browser.token = login.token()
    assert await browser.listed() == []
    answer = await browser.mint()
    assert answer.json()["user"] == "acme:alice"
    assert cookies_of(answer) == [FORGET]
    assert await browser.listed() == [answer.json()["id"]]
    assert refused(await browser.ask("POST", f"{SESSIONS}/{visited}/cancel")) == (404, "not_found")


async def test_a_visitor_who_logs_in_with_a_cookie_is_the_user(browser: Browser, login: Login) -> None:
    await browser.mint()
    browser.origin, browser.cookies["acme_token"] = APP, login.token()
    answer = await browser.mint()
    assert answer.json()["user"] == "acme:alice"
    assert cookies_of(answer) == [FORGET]


async def test_nothing_of_the_visit_comes_back_after_the_users_logout(browser: Browser, login: Login) -> None:
    visitor = await browser.user()
    browser.token = login.token()
    await browser.mint()
    await browser.log_out()
    browser.token = None
    assert refused(await browser.ask("GET", SESSIONS)) == (401, "missing_credentials")
    assert await browser.user() != visitor


async def test_a_user_who_never_minted_leaves_no_visit_behind_either(browser: Browser, login: Login) -> None:
    """Logged in, looked, logged out: the next person at this browser must not be the visitor from before."""
    visitor = await browser.user()
    browser.token = login.token(banned=True)
    assert refused(await browser.mint()) == (403, "policy_denied")
    answer = await browser.log_out()
    assert answer.status_code == 200
    assert cookies_of(answer) == [FORGET]
    browser.token = None
    assert await browser.user() != visitor


async def test_without_a_visit_nothing_is_forgotten(browser: Browser, login: Login) -> None:
    browser.token = login.token()
    assert cookies_of(await browser.mint()) == []
    assert cookies_of(await browser.log_out()) == []


async def test_a_login_that_is_no_good_is_no_visit(browser: Browser) -> None:
    await browser.mint()
    browser.token = "garbage"
    answer = await browser.mint()
    assert refused(answer) == (401, "invalid_token")
    assert cookies_of(answer) == []


async def test_no_token_claims_a_visitors_subject(browser: Browser, login: Login) -> None:
    await browser.mint()
    for name in ("x", "", visitor_of(browser.visitor())):
        browser.token = login.token(subject=f"visitor:{name}")
        for method, path in (("POST", SESSIONS), ("GET", SESSIONS), ("POST", LOGOUT)):
            assert refused(await browser.ask(method, path)) == (403, "policy_denied")
    browser.token = None
    assert len(await browser.listed()) == 1


async def test_no_subject_expression_makes_a_visitor(house: Open, login: Login) -> None:
    tenant = login.tenant(visitors=VISITORS)
    tenant["identity"][0]["subject"] = '"visitor:" + claims.sub'
    assert refused(await Browser(house(tenant), token=login.token()).mint()) == (403, "policy_denied")
