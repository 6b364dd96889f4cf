"""People who are not logged in: let in from the tenant's own pages, known again by a signed cookie."""

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from unit.http.conftest import Open
from unit.http.house import (
    DAY,
    KEY,
    LOGOUT,
    MAX_AGE,
    OLD_KEY,
    SESSIONS,
    WWW,
    Browser,
    Clock,
    Login,
    cookie_from,
    cookies_of,
    everything,
    refused,
    visitor_of,
)

VISITORS = {"origins": [WWW, "https://shop.example:8443"]}
NAME = "__Host-chatkit-visitor-acme"


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(
        login.tenant(visitors=VISITORS), login.tenant("globex", visitors={"origins": ["https://globex.example"]})
    )


async def test_the_first_mint_makes_a_visitor_and_gives_a_cookie(app: Starlette) -> None:
    browser = Browser(app)
    answer = await browser.mint()
    assert answer.status_code == 200
    assert answer.json()["client_secret"]
    assert answer.headers["cache-control"] == "no-store"
    ((name, value, max_age),) = cookies_of(answer)
    assert (name, max_age) == (NAME, MAX_AGE)
    assert answer.json()["user"] == f"acme:visitor:{visitor_of(value)}"


async def test_the_next_mint_is_the_same_visitors(app: Starlette) -> None:
    browser = Browser(app)
    first, second = await browser.mint(), await browser.mint()
    assert first.json()["user"] == second.json()["user"]
    assert cookies_of(second) == []
    assert set(await browser.listed()) == {first.json()["id"], second.json()["id"]}


async def test_two_browsers_are_two_visitors(app: Starlette) -> None:
    one, other = Browser(app), Browser(app)
    assert await one.user() != await other.user()
    assert len(await one.listed()) == len(await other.listed()) == 1


async def test_any_listed_origin_will_do(app: Starlette) -> None:
    browser = Browser(app)
    user = await browser.user()
    browser.origin = "https://shop.example:8443"
    assert await browser.user() == user


@pytest.mark.parametrize("with_cookie", [False, True])
async def test_without_an_origin_it_is_no_page(app: Starlette, with_cookie: bool) -> None:
    browser = Browser(app)
    if with_cookie:
        await browser.mint()
    browser.origin = None
    answer = await browser.mint()
    assert refused(answer) == (401, "missing_credentials")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert cookies_of(answer) == []


FOREIGN = [
    "null",
    "",
    "http://www.example",
    "https://www.example.evil.example",
    "https://evil.www.example",
    "https://evilwww.example",
    "https://www.example:443",
    "https://www.example:8443",
    "https://shop.example",
    "https://www.example/",
    "https://www.example.",
    "https://WWW.example",
    "https://www.example https://evil.example",
    "https://evil.example, https://www.example",
    "https://www.example@evil.example",
    "www.example",
    "*",
    "https://globex.example.",
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/cksess_1/cancel", LOGOUT])
async def test_a_page_of_another_origin_is_refused(app: Starlette, clock: Clock, origin: str, path: str) -> None:
    browser = Browser(app)
    browser.carry(cookie_from(clock()))
    browser.origin = origin
    answer = await browser.ask("POST", path)
    assert refused(answer) == (403, "policy_denied")
    assert cookies_of(answer) == []


async def test_a_refused_page_gets_no_visitor_and_stores_nothing(app: Starlette, redis: Redis) -> None:
    for origin in (None, "https://evil.example"):
        answer = await Browser(app, origin=origin).mint()
        assert cookies_of(answer) == []
    assert await everything(redis) == "[]"


async def test_only_a_mint_makes_a_visitor(app: Starlette, redis: Redis) -> None:
    """Anyone can send an Origin: what is not counted against an address must not fill Redis."""
    for path in (LOGOUT, f"{SESSIONS}/cksess_1/cancel"):
        answer = await Browser(app).ask("POST", path)
        assert refused(answer) == (401, "missing_credentials"), path
        assert cookies_of(answer) == []
    assert await everything(redis) == "[]"


async def test_a_list_needs_the_cookie_alone(app: Starlette) -> None:
    browser = Browser(app)
    minted = (await browser.mint()).json()["id"]
    browser.origin = None
    assert await browser.listed() == [minted]


async def test_a_list_without_a_cookie_is_nobodys(app: Starlette) -> None:
    for origin in (None, WWW):
        answer = await Browser(app, origin=origin).ask("GET", SESSIONS)
        assert refused(answer) == (401, "missing_credentials")
        assert cookies_of(answer) == []


async def test_a_list_for_a_page_of_another_origin_is_refused(app: Starlette) -> None:
    browser = Browser(app)
    await browser.mint()
    browser.origin = "https://evil.example"
    assert refused(await browser.ask("GET", SESSIONS)) == (403, "policy_denied")


async def test_a_visitor_cancels_its_own_session_alone(app: Starlette) -> None:
    one, other = Browser(app), Browser(app)
    minted = (await one.mint()).json()["id"]
    await other.mint()
    assert refused(await other.ask("POST", f"{SESSIONS}/{minted}/cancel")) == (404, "not_found")
    answer = await one.ask("POST", f"{SESSIONS}/{minted}/cancel")
    assert answer.json()["status"] == "cancelled"
    assert await one.listed() == []


async def test_a_cookie_is_renewed_after_half_its_life(app: Starlette, clock: Clock) -> None:
    browser = Browser(app)
    user, first = await browser.user(), browser.visitor()
    clock.forward(MAX_AGE / 2 - 60)
    assert await browser.user() == user
    assert browser.visitor() == first
    clock.forward(61)
    answer = await browser.mint()
    assert answer.json()["user"] == user
    ((name, renewed, max_age),) = cookies_of(answer)
    assert (name, max_age) == (NAME, MAX_AGE)
    assert renewed != first
    assert visitor_of(renewed) == visitor_of(first)
    clock.forward(MAX_AGE - 1)
    assert await browser.user() == user


async def test_a_visitor_who_stays_away_too_long_is_a_new_one(app: Starlette, clock: Clock) -> None:
    browser = Browser(app)
    user = await browser.user()
    clock.forward(MAX_AGE - 2)
    assert Browser(app, cookies=dict(browser.cookies)).visitor()
    clock.forward(4)
    assert refused(await browser.ask("GET", SESSIONS)) == (401, "missing_credentials")
    assert await browser.user() != user


async def test_a_days_bound_is_the_tenants(house: Open, login: Login, clock: Clock) -> None:
    browser = Browser(house(login.tenant(visitors={**VISITORS, "max_age_days": 1})))
    answer = await browser.mint()
    assert cookies_of(answer)[0][2] == DAY
    clock.forward(DAY + 1)
    assert await browser.user() != answer.json()["user"]


async def test_keys_rotate_without_losing_a_visitor(house: Open, login: Login) -> None:
    tenant = login.tenant(visitors=VISITORS)
    browser = Browser(house(tenant, keys=(OLD_KEY,)))
    user, old = await browser.user(), browser.visitor()
    assert old
    browser.app = house(tenant, keys=(KEY, OLD_KEY))
    assert len(await browser.listed()) == 1
    assert browser.visitor() == old
    assert await browser.user() == user
    assert browser.visitor() != old
    assert visitor_of(browser.visitor()) == visitor_of(old)
    browser.app = house(tenant, keys=(KEY,))
    assert await browser.user() == user
    browser.carry(old)
    assert await browser.user() != user


async def test_a_key_comes_first_to_verify_before_it_signs(house: Open, login: Login) -> None:
    """During a rollout some replicas sign with the new key already: those with the old one first must know it."""
    tenant = login.tenant(visitors=VISITORS)
    browser = Browser(house(tenant, keys=(KEY, OLD_KEY)))
    user = await browser.user()
    browser.app = house(tenant, keys=(OLD_KEY, KEY))
    assert await browser.user() == user
