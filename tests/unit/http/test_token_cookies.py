"""A tenant may take its users' access tokens from a cookie, of its own pages alone."""

import pytest
from starlette.applications import Starlette

from unit.http.conftest import Open
from unit.http.house import APP, LOGOUT, SESSIONS, WWW, Browser, Login, cookies_of, refused

COOKIE = "acme_token"
GLOBEX_APP = "https://globex.example"


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(
        login.tenant(cookie={"name": COOKIE, "origins": [APP]}, visitors={"origins": [WWW, APP]}),
        login.tenant("globex", cookie={"name": "globex_token", "origins": [GLOBEX_APP, APP]}),
        login.tenant("initech", cookie={"name": COOKIE, "origins": ["https://initech.example"]}),
    )


@pytest.fixture
def browser(app: Starlette, login: Login) -> Browser:
    return Browser(app, origin=APP, cookies={COOKIE: login.token()})


async def test_the_cookies_user_mints_lists_cancels_and_logs_out(browser: Browser) -> None:
    answer = await browser.mint()
    assert answer.json()["user"] == "acme:alice"
    assert cookies_of(answer) == []
    assert await browser.listed() == [answer.json()["id"]]
    cancelled = await browser.ask("POST", f"{SESSIONS}/{answer.json()['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    assert (await browser.log_out()).json() == {"cancelled": 0, "pending": 0}
    assert refused(await browser.mint()) == (401, "login_revoked")


FOREIGN = [
    WWW,
    GLOBEX_APP,
    "null",
    "http://app.example",
    "https://app.example.evil.example",
    "https://app.example/",
    "",
]


@pytest.mark.parametrize("origin", [None, *FOREIGN])
@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/cksess_1/cancel", LOGOUT])
async def test_a_change_from_another_page_is_refused_and_no_visitors(
    browser: Browser, origin: str | None, path: str
) -> None:
    browser.origin = origin
    answer = await browser.ask("POST", path)
    assert refused(answer) == (403, "policy_denied")
    assert cookies_of(answer) == []


async def test_a_list_may_come_without_an_origin(browser: Browser) -> None:
    minted = (await browser.mint()).json()["id"]
    browser.origin = None
    assert await browser.listed() == [minted]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_list_for_another_page_is_refused(browser: Browser, origin: str, method: str) -> None:
    browser.origin = origin
    assert (await browser.ask(method, SESSIONS)).status_code == 403


async def test_the_header_wins_over_the_cookie(browser: Browser, login: Login) -> None:
    browser.token = login.token(subject="bob")
    assert await browser.user() == "acme:bob"
    browser.origin = "https://anywhere.example"  # a script that holds a token needs no listed page
    assert await browser.user() == "acme:bob"
    browser.token, browser.origin = "garbage", APP
    assert refused(await browser.mint()) == (401, "invalid_token")


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", ""])
async def test_a_header_of_another_kind_does_not_fall_back_to_the_cookie(browser: Browser, header: str) -> None:
    answer = await browser.ask("POST", SESSIONS, authorization=header)
    assert refused(answer) == (401, "missing_credentials")


@pytest.mark.parametrize("value", ["", "garbage", "a.b.c", '"quoted"', "x" * 20_000])
async def test_garbage_is_no_login_and_no_visit(browser: Browser, value: str) -> None:
    browser.cookies[COOKIE] = value
    for method in ("POST", "GET"):
        answer = await browser.ask(method, SESSIONS)
        assert refused(answer) == (401, "invalid_token")
        assert cookies_of(answer) == []


async def test_an_expired_login_is_no_visit(browser: Browser, login: Login) -> None:
    now = int(login.clock())
    browser.cookies[COOKIE] = login.token(iat=now - 1000, exp=now - 400)
    assert refused(await browser.mint()) == (401, "token_expired")


@pytest.mark.parametrize("origin", [APP, GLOBEX_APP, "https://initech.example"])
@pytest.mark.parametrize("chosen", [None, "acme", "globex", "initech"])
@pytest.mark.parametrize("tenant", ["globex", "initech"])
async def test_one_tenants_cookie_never_authenticates_at_another(
    browser: Browser, login: Login, origin: str, chosen: str | None, tenant: str
) -> None:
    """A token for *tenant*, in acme's cookie. Initech's has the same name: there it is its own, on its own pages."""
    browser.cookies[COOKIE] = login.token(tenant)
    browser.origin, browser.tenant = origin, chosen
    answer = await browser.mint()
    if tenant == "initech" and origin == "https://initech.example" and chosen in (None, "initech"):
        assert answer.json()["user"] == "initech:alice"
    else:
        assert answer.status_code in (401, 403), answer.text


async def test_a_token_counts_in_its_own_tenants_cookie_alone(browser: Browser, login: Login) -> None:
    """Both cookies come, from a page of both: globex's token in acme's cookie is still no login at globex."""
    browser.cookies = {COOKIE: login.token("globex", "mallory"), "globex_token": "garbage"}
    for browser.tenant in (None, "acme", "globex"):
        answer = await browser.mint()
        assert answer.status_code in (400, 401), (browser.tenant, answer.text)


async def test_the_logins_of_two_tenants_stand_side_by_side(browser: Browser, login: Login) -> None:
    browser.cookies["globex_token"] = login.token("globex", "bob")
    for browser.tenant, user in (("acme", "acme:alice"), ("globex", "globex:bob")):
        assert await browser.user() == user


async def test_a_page_of_two_logins_must_choose(browser: Browser, login: Login) -> None:
    browser.cookies["globex_token"] = login.token("globex", "bob")
    answer = await browser.mint()
    assert refused(answer) == (400, "invalid_request")
    assert answer.json()["field"] == "ChatKit-Tenant"


async def test_a_login_that_fits_no_tenant_is_refused(house: Open, login: Login) -> None:
    tenant = login.tenant(cookie={"name": COOKIE, "origins": [APP]})
    tenant["identity"][0]["match"] = 'claims.org == "acme"'
    browser = Browser(house(tenant), origin=APP, cookies={COOKIE: login.token(org="globex")})
    assert refused(await browser.mint()) == (403, "policy_denied")


async def test_a_tenant_that_takes_no_cookie_takes_none(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant()), origin=APP, cookies={COOKIE: login.token()})
    assert refused(await browser.mint()) == (401, "missing_credentials")
