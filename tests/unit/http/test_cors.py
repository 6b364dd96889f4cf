"""CORS: exact origins by tenant, in preflights, answers and errors."""

from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from unit.http.conftest import Open
from unit.http.house import LOGOUT, SESSIONS, WWW, Browser, Login

PAGE, OTHERS = "https://page.example", "https://others.example"
PATHS = [SESSIONS, LOGOUT, "/api/create-session", "/api/chatkit/start", "/api/chatkit/refresh"]


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(
        login.tenant("acme", cors={"origins": [PAGE]}, quota={"mints": ["1/minute"]}),
        login.tenant("globex", cors={"origins": [OTHERS]}, visitors={"origins": [WWW]}),
    )


async def ask(app: Starlette, method: str, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://mint.example") as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, path, headers=sent)


def told(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_is_answered_before_anything_is_known_of_the_caller(app: Starlette, path: str) -> None:
    answer = await ask(
        app,
        "OPTIONS",
        path,
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type, chatkit-tenant",
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert told(answer)["access-control-allow-origin"] == PAGE
    assert "POST" in told(answer)["access-control-allow-methods"]
    wanted = {"authorization", "content-type", "chatkit-tenant"}
    assert wanted <= {name.strip() for name in told(answer)["access-control-allow-headers"].split(",")}
    assert int(told(answer)["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in told(answer)
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", f"{PAGE}.evil.example", PAGE.upper(), f"{PAGE}:8443", "null", "http://page.example"],
)
async def test_an_origin_that_nobody_listed_gets_nothing(app: Starlette, login: Login, origin: str) -> None:
    answer = await ask(app, "OPTIONS", SESSIONS, origin=origin, access_control_request_method="POST")
    assert (answer.status_code, told(answer)) == (204, {})
    answer = await ask(app, "POST", SESSIONS, origin=origin, authorization=f"Bearer {login.token()}")
    assert (answer.status_code, told(answer)) == (200, {})
    assert answer.headers["vary"] == "Origin"


async def test_a_page_may_read_its_own_tenants_answers_alone(app: Starlette, login: Login) -> None:
    for tenant, own, other in (("acme", PAGE, OTHERS), ("globex", OTHERS, PAGE)):
        token = f"Bearer {login.token(tenant)}"
        answer = await ask(app, "GET", SESSIONS, origin=own, authorization=token)
        assert (answer.status_code, told(answer)["access-control-allow-origin"]) == (200, own)
        answer = await ask(app, "GET", SESSIONS, origin=other, authorization=token)
        assert told(answer) == {}, "somebody else's page"


async def test_errors_carry_the_headers_too(app: Starlette, login: Login) -> None:
    token = f"Bearer {login.token()}"
    answers = [
        await ask(app, "POST", SESSIONS, origin=PAGE),
        await ask(app, "POST", SESSIONS, origin=PAGE, authorization="Bearer nonsense"),
        await ask(app, "DELETE", SESSIONS, origin=PAGE),
        await ask(app, "POST", "/nowhere", origin=PAGE),
        *[await ask(app, "POST", SESSIONS, origin=PAGE, authorization=token) for _ in range(2)],
    ]
    assert [answer.status_code for answer in answers] == [403, 401, 405, 404, 200, 429]
    for answer in answers:
        assert told(answer)["access-control-allow-origin"] == PAGE
        exposed = {name.strip().lower() for name in told(answer)["access-control-expose-headers"].split(",")}
        assert {"retry-after", "ratelimit", "ratelimit-policy", "x-request-id"} <= exposed
    assert "retry-after" in answers[-1].headers


async def test_cookies_come_along_from_pages_that_may_use_them(app: Starlette) -> None:
    browser = Browser(app, origin=WWW)
    answer = await browser.mint()
    assert answer.status_code == 200
    assert (told(answer)["access-control-allow-origin"], told(answer)["access-control-allow-credentials"]) == (
        WWW,
        "true",
    )
    preflight = await ask(app, "OPTIONS", SESSIONS, origin=WWW, access_control_request_method="POST")
    assert told(preflight)["access-control-allow-credentials"] == "true"


async def test_what_is_no_preflight_is_no_preflight(app: Starlette) -> None:
    assert (await ask(app, "OPTIONS", SESSIONS, origin=PAGE)).status_code == 405
    answer = await ask(app, "GET", "/nowhere")
    assert (answer.status_code, told(answer)) == (404, {})
    assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["*", "https://page.example/", "page.example", "https://*.example", "null", "HTTPS://page.example"]
)
def test_only_exact_origins_can_be_listed(house: Open, login: Login, origin: Any) -> None:
    with pytest.raises(ValueError, match="origins"):
        house(login.tenant(cors={"origins": [origin]}))
