"""Several tenants with visitors: each has its own, and a page that belongs to two of them must choose."""

import pytest
from starlette.applications import Starlette

from support.tenants import tenant_file
from unit.http.conftest import Open
from unit.http.house import SESSIONS, WWW, Browser, Clock, Login, cookie_from, refused

GLOBEX = "https://globex.example"
BOTH = "https://both.example"


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(
        login.tenant("acme", visitors={"origins": [WWW, BOTH]}),
        login.tenant("globex", visitors={"origins": [GLOBEX, BOTH]}),
        login.tenant("initech"),
    )


@pytest.mark.parametrize(("origin", "tenant"), [(WWW, "acme"), (GLOBEX, "globex")])
async def test_the_page_says_whose_visitor_it_is(app: Starlette, origin: str, tenant: str) -> None:
    browser = Browser(app, origin=origin)
    assert (await browser.user()).startswith(f"{tenant}:visitor:")
    assert list(browser.cookies) == [f"__Host-chatkit-visitor-{tenant}"]


async def test_a_page_of_two_tenants_must_choose(app: Starlette) -> None:
    browser = Browser(app, origin=BOTH)
    answer = await browser.mint()
    assert refused(answer) == (400, "invalid_request")
    assert answer.json()["field"] == "ChatKit-Tenant"
    assert "set-cookie" not in answer.headers
    for tenant in ("acme", "globex"):
        browser.tenant = tenant
        assert (await browser.user()).startswith(f"{tenant}:visitor:")


@pytest.mark.parametrize("tenant", ["initech", "nobody", "", "ACME"])
async def test_a_tenant_without_visitors_reads_like_one_that_does_not_exist(app: Starlette, tenant: str) -> None:
    assert refused(await Browser(app, tenant=tenant).mint()) == (401, "missing_credentials")


async def test_a_page_cannot_choose_a_tenant_that_is_not_its_own(app: Starlette) -> None:
    assert refused(await Browser(app, tenant="globex").mint()) == (403, "policy_denied")


async def test_visits_at_two_tenants_stand_side_by_side(app: Starlette) -> None:
    browser = Browser(app, origin=BOTH)
    sessions, users = {}, {}
    for tenant in ("acme", "globex"):
        browser.tenant = tenant
        answer = (await browser.mint()).json()
        sessions[tenant], users[tenant] = answer["id"], answer["user"]
    assert len(browser.cookies) == 2
    for tenant in ("globex", "acme"):
        browser.tenant = tenant
        assert await browser.listed() == [sessions[tenant]]
        assert await browser.user() == users[tenant]
    await browser.log_out()
    assert list(browser.cookies) == ["__Host-chatkit-visitor-globex"]
    browser.tenant = "globex"
    assert await browser.user() == users["globex"]


async def test_a_list_is_of_the_tenant_whose_page_asks(app: Starlette) -> None:
    browser, sessions = Browser(app), {}
    for origin in (WWW, GLOBEX):
        browser.origin = origin
        sessions[origin] = (await browser.mint()).json()["id"]
    assert len(browser.cookies) == 2
    for origin, session in sessions.items():
        browser.origin = origin
        assert await browser.listed() == [session]


async def test_a_list_without_an_origin_is_of_the_tenant_that_is_chosen(app: Starlette) -> None:
    browser = Browser(app)
    minted = (await browser.mint()).json()["id"]
    browser.origin = None
    for tenant, listed in (("acme", [minted]), (None, [minted])):
        browser.tenant = tenant
        assert await browser.listed() == listed
    browser.tenant = "globex"
    assert refused(await browser.ask("GET", SESSIONS)) == (401, "missing_credentials")


async def test_one_tenants_cookie_under_anothers_name_is_nobodys(app: Starlette, clock: Clock) -> None:
    browser = Browser(app, origin=GLOBEX)
    cookie = cookie_from(clock(), tenant="acme")
    browser.carry(cookie, "globex")
    assert cookie.split(".")[1] not in await browser.user()


async def test_a_login_ends_the_visit_at_its_own_tenant_alone(app: Starlette, login: Login) -> None:
    browser = Browser(app)
    await browser.mint()
    browser.origin = GLOBEX
    await browser.mint()
    browser.token = login.token("acme")
    await browser.mint()
    assert list(browser.cookies) == ["__Host-chatkit-visitor-globex"]


async def test_a_tenant_may_have_visitors_alone(house: Open, login: Login) -> None:
    app = house(tenant_file("acme", [], visitors={"origins": [WWW]}))
    browser = Browser(app)
    assert (await browser.ask("POST", SESSIONS)).status_code == 200
    assert len(await browser.listed()) == 1
    assert refused(await Browser(app, token=login.token()).ask("POST", SESSIONS)) == (401, "invalid_token")
    assert refused(await Browser(app, origin=None).ask("POST", SESSIONS)) == (401, "missing_credentials")
