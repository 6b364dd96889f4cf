"""An app's own servers: with a tenant's key they log its users out and see what they have."""

from urllib.parse import quote

import httpx2
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from structlog.testing import capture_logs

from service.identity.service_keys import PREFIX, make_service_key
from service.upstream.authority.sessions import Authority
from unit.http.conftest import Open
from unit.http.house import WWW, Browser, Login, everything, refused, visitor_of

LOGOUT, READ, BOTH, GLOBEX = (make_service_key() for _ in range(4))


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    keys = [
        {"name": "hook", "sha256": LOGOUT[1], "may": ["logout"]},
        {"name": "support", "sha256": READ[1], "may": ["read"]},
        {"name": "both", "sha256": BOTH[1], "may": ["logout", "read"]},
    ]
    other = [{"name": "hook", "sha256": GLOBEX[1], "may": ["logout", "read"]}]
    return house(
        login.tenant(service_keys=keys, visitors={"origins": [WWW]}),
        login.tenant("globex", service_keys=other),
        login.tenant("initech"),
    )


async def call(
    app: Starlette, doing: str, subject: str, key: str | None, *, tenant: str = "acme", method: str | None = None
) -> httpx2.Response:
    """Call as a server does, the subject percent-encoded."""
    path = f"/v1/tenants/{tenant}/users/{quote(subject, safe='')}/{doing}"
    server = Browser(app, origin=None, token=key)
    return await server.ask(method or ("POST" if doing == "logout" else "GET"), path)


SUBJECTS = [
    "alice",
    "auth0|5f7c8ec7",
    "google-oauth2|1|2",
    "users/42",
    "/leading",
    "trailing/",
    "a//b",
    "a/logout",
    "a/sessions",
    "with space",
    "ädä@exämple.org",
    "日本語 🙂",
    "100%",
    "a%2Fb",
    "a+b&c=d;e?f#g",
    "https://login.example/users/7?x=1",
    'quote"\\',
    "x" * 256,
]


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_logout_cancels_all_and_fences_the_user(
    app: Starlette, login: Login, redis: Redis, subject: str
) -> None:
    logins = [Browser(app, token=login.token(subject=subject)) for _ in range(2)]
    sessions = {(await each.mint()).json()["id"] for each in logins}
    listed = await call(app, "sessions", subject, READ[0])
    assert listed.status_code == 200, listed.text
    assert {each["id"] for each in listed.json()["data"]} == sessions
    assert "client_secret" not in listed.text
    answer = await call(app, "logout", subject, LOGOUT[0])
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 2, "pending": 0})
    for each in sessions:
        session = await Authority(redis).find(each)
        assert session
        assert session["status"] == "cancelled"
    for each_login in logins:
        assert refused(await each_login.mint()) == (401, "login_revoked")
    assert (await call(app, "sessions", subject, READ[0])).json()["data"] == []


async def test_a_logout_is_of_that_user_at_that_tenant_alone(app: Starlette, login: Login) -> None:
    others = [login.token(subject="alice2"), login.token(subject="Alice"), login.token("globex")]
    browsers = [Browser(app, token=each) for each in others]
    for browser in browsers:
        await browser.mint()
    assert (await call(app, "logout", "alice", LOGOUT[0])).json() == {"cancelled": 0, "pending": 0}
    for browser in browsers:
        assert len(await browser.listed()) == 1
        assert (await browser.mint()).status_code == 200


async def test_who_logs_in_again_is_let_in(app: Starlette, login: Login) -> None:
    await call(app, "logout", "alice", LOGOUT[0])
    assert refused(await Browser(app, token=login.token()).mint()) == (401, "login_revoked")
    login.clock.forward(2)
    assert (await Browser(app, token=login.token()).mint()).status_code == 200


async def test_a_server_ends_a_visit(app: Starlette) -> None:
    browser = Browser(app)
    await browser.mint()
    subject = f"visitor:{visitor_of(browser.visitor())}"
    assert (await call(app, "logout", subject, LOGOUT[0])).json()["cancelled"] == 1
    assert refused(await browser.mint()) == (401, "login_revoked")
    assert browser.visitor() is None


@pytest.mark.parametrize("doing", ["logout", "sessions"])
async def test_a_key_that_is_not_the_tenants_reads_the_same_everywhere(
    app: Starlette, login: Login, doing: str
) -> None:
    await Browser(app, token=login.token()).mint()
    key = BOTH[0]
    wrong = [
        ("acme", make_service_key()[0]),
        ("acme", GLOBEX[0]),
        ("acme", login.token()),
        ("acme", BOTH[1]),
        ("acme", key[:-1]),
        ("acme", key + "A"),
        ("acme", key.removeprefix(PREFIX)),
        ("acme", key.upper()),
        ("acme", PREFIX),
        ("globex", key),
        ("initech", key),
        ("nobody", key),
        ("ACME", key),
        ("acme ", key),
    ]
    answers = set()
    for tenant, presented in wrong:
        with capture_logs() as lines:
            answer = await call(app, doing, "alice", presented, tenant=quote(tenant))
        problem = answer.json()
        assert problem.pop("request_id")
        answers.add((answer.status_code, str(problem), answer.headers["www-authenticate"]))
        assert presented not in str(lines)
    ((status, problem_text, challenge),) = answers
    assert (status, challenge) == (401, 'Bearer error="invalid_token"')
    assert "invalid_token" in problem_text
    assert len(await Browser(app, token=login.token()).listed()) == 1


@pytest.mark.parametrize("tenant", ["acme", "initech", "nobody"])
@pytest.mark.parametrize("doing", ["logout", "sessions"])
async def test_no_key_reads_the_same_everywhere(app: Starlette, doing: str, tenant: str) -> None:
    answer = await call(app, doing, "alice", None, tenant=tenant)
    assert refused(answer) == (401, "missing_credentials")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_visitors_cookie_is_no_key(app: Starlette) -> None:
    browser = Browser(app)
    await browser.mint()
    answer = await browser.ask("GET", "/v1/tenants/acme/users/alice/sessions")
    assert refused(answer) == (401, "missing_credentials")


@pytest.mark.parametrize(("doing", "key"), [("logout", READ[0]), ("sessions", LOGOUT[0])], ids=["logout", "sessions"])
async def test_a_right_that_is_missing_is_refused(app: Starlette, login: Login, doing: str, key: str) -> None:
    browser = Browser(app, token=login.token())
    await browser.mint()
    assert refused(await call(app, doing, "alice", key)) == (403, "policy_denied")
    assert len(await browser.listed()) == 1


@pytest.mark.parametrize("doing", ["logout", "sessions"])
async def test_rights_go_together(app: Starlette, doing: str) -> None:
    assert (await call(app, doing, "alice", BOTH[0])).status_code == 200


@pytest.mark.parametrize(("doing", "method"), [("logout", "GET"), ("sessions", "POST"), ("sessions", "DELETE")])
async def test_each_route_has_its_method(app: Starlette, doing: str, method: str) -> None:
    answer = await call(app, doing, "alice", BOTH[0], method=method)
    assert refused(answer) == (405, "method_not_allowed")


async def test_a_service_key_is_no_users_token(app: Starlette) -> None:
    for method in ("GET", "POST"):
        answer = await Browser(app, token=BOTH[0]).ask(method, "/v1/chatkit/sessions")
        assert refused(answer) == (401, "invalid_token")


async def test_a_key_is_nowhere_but_with_its_server(app: Starlette, redis: Redis, login: Login) -> None:
    await Browser(app, token=login.token()).mint()
    with capture_logs() as lines:
        answers = [await call(app, doing, "alice", BOTH[0]) for doing in ("sessions", "logout")]
    assert [line["service_key"] for line in lines if line["event"] == "request"] == ["both", "both"]
    for text in (str(lines), await everything(redis), *(f"{each.text} {each.headers}" for each in answers)):
        assert BOTH[0] not in text
        assert BOTH[0].removeprefix(PREFIX) not in text
        assert BOTH[1] not in text
    assert "alice" not in str(lines)


def test_keys_are_long_random_and_known_by_their_prefix() -> None:
    keys = {make_service_key()[0] for _ in range(500)}
    assert len(keys) == 500
    assert all(key.startswith("cmk_") and len(key) == 47 for key in keys)
