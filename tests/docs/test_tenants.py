"""The recipes of docs/tenants.md: checked, and then run, with tokens of the shape that each provider's have."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.parts import AUTHORITY_DB, SERVICE_DB, RedisServer, eventually, stopping
from api.stack import Service, Upstream
from docs.providers import HOSTS, PAGE, SECRET, Providers
from service.identity.claims import LOGOUT_EVENT
from service.policy.explain import explain
from service.policy.load import load_policies
from service.policy.outside import Defaults
from support.forge import sign
from support.pages import blocks, named
from support.processes import Process, clean_environ

pytestmark = pytest.mark.process

MINT, LOGOUT, BACKCHANNEL = "/v1/chatkit/sessions", "/v1/logout", "/v1/logout/backchannel"
APP, WWW = "https://app.acme.example", "https://www.acme.example"
KEYS = {"OPENAI_API_KEY": "sk-one", "NORTH_OPENAI_KEY": "sk-two", "SOUTH_OPENAI_KEY": "sk-three"}
FOUR = ("auth0", "keycloak", "clerk", "supabase")


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    providers = Providers.start()
    yield providers
    providers.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.stop()


@pytest.fixture(scope="module")
def authority(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In OpenAI's place: the base URL of an authority where each key is a project by itself."""
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis.url(AUTHORITY_DB))
    output = tmp_path_factory.mktemp("authority") / "log"
    process = Process("authority", "--port", "0", output=output, environ=environ)
    with stopping([process]):
        yield process.wait_for(r"authority is ready\b.*?(http://\S+)")[1]


@pytest.fixture(scope="module")
def serve(redis: RedisServer, authority: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Start the service on a configuration."""
    started: list[Service] = []

    def start(config: Path) -> Service:
        output = tmp_path_factory.mktemp("service") / "log"
        settings = {**KEYS, "SUPABASE_JWT_SECRET": SECRET, "CHATKIT_MINT_VISITOR_KEYS": secrets.token_hex(24)}
        started.append(Service(output, config, redis.url(SERVICE_DB), OPENAI_BASE_URL=authority, **settings))
        return started[-1].wait()

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def service(serve: Callable[..., Any], providers: Providers, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """All recipes at once, as they stand on the page."""
    running: Service = serve(providers.save_page(tmp_path_factory.mktemp("page")))
    return running


@pytest.fixture(scope="module")
def openai(redis: RedisServer) -> Upstream:
    return Upstream(redis.url(AUTHORITY_DB))


def ask(service: Service, token: str, path: str = MINT, **headers: str) -> httpx2.Response:
    return service.http.post(path, headers={"authorization": f"Bearer {token}", **headers})


def mint(service: Service, token: str, **headers: str) -> dict[str, Any]:
    answer = ask(service, token, **headers)
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


def test_there_are_ten_each_with_tests() -> None:
    files = named(PAGE)
    tenants = {Path(name).stem for name in files if re.fullmatch(r"config/tenants/\w+\.yaml", name)}
    tested = {Path(name).name.removesuffix(".test.yaml") for name in files if name.endswith(".test.yaml")}
    assert tenants - tested == {"north"}  # stands beside south
    assert len(tenants) == 11
    assert all(each.name for each in blocks(PAGE, "yaml"))
    assert {name for name, _ in HOSTS.items()} == {*FOUR, "login"}


WHAT_EACH_GETS = {
    "auth0": ("auth0:auth0|5f7c", "wf_support", True),
    "keycloak": ("keycloak:36fa0f91-f94d", "wf_staff", False),
    "clerk": ("clerk:user_2abc", "wf_support", False),
    "supabase": ("supabase:1b9d6bcd-bbfd", "wf_support", True),
}


@pytest.mark.parametrize("name", FOUR)
def test_a_login_of_the_provider_mints(service: Service, providers: Providers, name: str) -> None:
    session = mint(service, providers.token(name))
    upload = session["chatkit_configuration"]["file_upload"]["enabled"]
    assert (session["user"], session["workflow"]["id"], upload) == WHAT_EACH_GETS[name]


WRONG: list[tuple[str, dict[str, Any], int]] = [
    ("auth0", {"aud": "https://acme.eu.auth0.com/userinfo"}, 401),
    ("auth0", {"aud": "5Qw1nK7acmeClientId", "nonce": "n"}, 401),  # an ID token
    ("auth0", {"iss": "https://acme.eu.auth0.com"}, 401),
    ("auth0", {"org_id": "org_other"}, 403),
    ("auth0", {"org_id": None}, 403),
    ("keycloak", {"aud": "account"}, 401),
    ("keycloak", {"aud": None}, 401),
    ("keycloak", {"azp": "another-client"}, 401),
    ("keycloak", {"typ": "ID"}, 401),
    ("keycloak", {"typ": "Refresh"}, 401),
    ("clerk", {"azp": "https://evil.example"}, 401),
    ("clerk", {"azp": None}, 401),
    ("clerk", {"aud": "another-backend"}, 401),
    ("clerk", {"nbf": int(time.time()) + 3600}, 401),
    ("clerk", {"act": {"sub": "user_support"}}, 403),
    ("supabase", {"aud": "anon"}, 401),
    ("supabase", {"role": "service_role"}, 403),
    ("supabase", {"session_id": None}, 403),
    *((name, {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200}, 401) for name in FOUR),
    *((name, {"sub": None}, 401) for name in FOUR),
]


@pytest.mark.parametrize(("name", "change", "status"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_one_is_refused(
    service: Service, providers: Providers, name: str, change: dict[str, Any], status: int
) -> None:
    assert ask(service, providers.token(name, **change)).status_code == status


def test_supabases_old_secret_signs_too_and_the_two_ways_never_mix(service: Service, providers: Providers) -> None:
    assert mint(service, providers.token("supabase", header={"alg": "HS256"}))["user"] == "supabase:1b9d6bcd-bbfd"
    public = str(providers.signers["supabase"].jwk).encode()
    claims = providers.usual("supabase")
    for key in (public, b"another secret of thirty-two bytes and more"):
        assert ask(service, sign("HS256", key, {"alg": "HS256", "typ": "JWT"}, claims)).status_code == 401


def test_supabases_login_is_its_session_id(service: Service, providers: Providers) -> None:
    subject = "logs-in-twice"
    one, other = (providers.token("supabase", sub=subject, session_id=each) for each in ("s1", "s2"))
    mint(service, one)
    mint(service, other)
    assert ask(service, one, LOGOUT).json() == {"cancelled": 1, "pending": 0}
    assert ask(service, one).json()["code"] == "login_revoked"
    mint(service, other)


def test_clerks_cookie_comes_from_its_own_pages_alone(service: Service, providers: Providers) -> None:
    cookie = {"cookie": f"__session={providers.token('clerk', sub='user_cookie')}"}
    assert service.http.post(MINT, headers={**cookie, "origin": APP}).status_code == 200
    assert service.http.post(MINT, headers={**cookie, "origin": "https://evil.example"}).status_code == 403


def test_a_visitor_has_the_small_workflow_and_one_session(service: Service, openai: Upstream) -> None:
    page = {"origin": WWW}
    first = service.http.post(MINT, headers=page)
    assert first.status_code == 200, first.text
    assert first.json()["workflow"]["id"] == "wf_presales"
    assert first.json()["user"].startswith("visitors:visitor:")
    cookie = first.headers["set-cookie"].partition(";")[0]
    again = service.http.post(MINT, headers={**page, "cookie": cookie})
    assert again.json()["user"] == first.json()["user"]
    eventually(lambda: openai.status(first.json()["id"]) == "cancelled")  # one at a time
    assert service.http.post(MINT, headers={"origin": "https://evil.example"}).status_code == 403


def test_plans_are_explained_as_the_page_says(providers: Providers, tmp_path: Path) -> None:
    tenant = load_policies(
        providers.save_page(tmp_path),
        Defaults(
            {}, None, "https://api.example/v1", jwks_problem=lambda _: None, secrets_needed=False, visitor_keys=True
        ),
    ).tenants["plans"]
    told = explain(tenant, {"sub": "alice", "plan": "team"}, {})
    by_field = {each.field: (each.value, each.set_by) for each in told.fields}
    assert by_field["workflow.id"] == ("wf_team", "rule 'team'")
    assert by_field["rate_limits.max_requests_per_1_minute"] == (30, "rule 'pro'")
    assert not explain(tenant, {"sub": "alice", "overdue": True}, {}).granted


def test_the_rollout_has_its_share(providers: Providers, tmp_path: Path) -> None:
    policies = load_policies(
        providers.save_page(tmp_path),
        Defaults(
            {}, None, "https://api.example/v1", jwks_problem=lambda _: None, secrets_needed=False, visitor_keys=True
        ),
    )
    rollout = policies.tenants["rollout"].rollouts[0]
    share = sum(rollout.variant_of("rollout", f"user-{n}") is not None for n in range(10_000)) / 10_000
    assert abs(share - 0.20) < 0.02


def test_the_rollout_reaches_upstream(service: Service, providers: Providers) -> None:
    for subject, version in (("user-6", "8"), ("user-3", "7")):
        session = mint(service, providers.token("login", aud="acme-rollout", sub=subject))
        assert session["workflow"]["version"] == version


@pytest.mark.parametrize(("org", "key"), [("north", "sk-two"), ("south", "sk-three")])
def test_each_tenant_uses_its_own_key(
    service: Service, providers: Providers, authority: str, org: str, key: str
) -> None:
    session = mint(service, providers.token("login", aud="acme-house", org=org))
    assert session["user"] == f"{org}:alice"

    def cancel(with_key: str) -> int:
        headers = {"authorization": f"Bearer {with_key}", "openai-beta": "chatkit_beta=v1"}
        return httpx2.post(f"{authority}/chatkit/sessions/{session['id']}/cancel", headers=headers).status_code

    assert [cancel(each) for each in KEYS.values() if each != key] == [404, 404]
    assert cancel(key) == 200


def test_who_is_of_no_tenant_of_the_house_is_refused(service: Service, providers: Providers) -> None:
    assert ask(service, providers.token("login", aud="acme-house", org="east")).status_code == 403


def logout_token(providers: Providers, name: str, **changes: Any) -> dict[str, str]:
    now = int(time.time())
    claims = {"iat": now, "exp": now + 120, "jti": secrets.token_hex(8), "events": {LOGOUT_EVENT: {}}, **changes}
    signer = providers.signers[name]
    header = {"alg": signer.alg, "kid": signer.kid, "typ": "logout+jwt"}
    return {"logout_token": sign(signer.alg, signer.key, header, {"iss": signer.issuer, **claims})}


@pytest.mark.parametrize(
    ("name", "access", "logout"),
    [
        ("login", {"aud": "acme-chat", "sid": "s-9"}, {"aud": "acme-web", "sid": "s-9"}),
        ("keycloak", {"sid": "s-9"}, {"aud": "acme-web", "sid": "s-9"}),
        ("auth0", {}, {"aud": "5Qw1nK7acmeClientId", "sid": "unknown-to-access-tokens"}),
    ],
)
def test_a_logout_at_the_provider_ends_the_session(
    service: Service,
    providers: Providers,
    openai: Upstream,
    name: str,
    access: dict[str, Any],
    logout: dict[str, Any],
) -> None:
    subject = f"leaves-{name}"
    token = providers.token(name, sub=subject, **access)
    session = mint(service, token)
    wrong = logout_token(providers, name, sub=subject, **{**logout, "aud": "somebody-else"})
    assert service.http.post(BACKCHANNEL, data=wrong).status_code == 400
    assert openai.status(session["id"]) == "active"
    assert service.http.post(BACKCHANNEL, data=logout_token(providers, name, sub=subject, **logout)).status_code == 200
    eventually(lambda: openai.status(session["id"]) == "cancelled")
    assert ask(service, token).json()["code"] == "login_revoked"


BEFORE = {"upstream: {kind: authority} ": "upstream: {kind: openai} ", "former_upstreams:\n  - {kind: openai}": "#"}


@pytest.mark.parametrize("how", ["reloaded", "started anew", "started anew, and the old place not named"])
def test_a_moved_tenants_sessions_are_cancelled_where_they_were_issued(
    serve: Callable[..., Any], providers: Providers, redis: RedisServer, openai: Upstream, tmp_path: Path, how: str
) -> None:
    config = providers.save_page(tmp_path)
    file = config / "tenants" / "moving.yaml"
    after = before = file.read_text()
    for new, old in BEFORE.items():
        assert new in before
        before = before.replace(new, old)
    if how.endswith("not named"):
        after = after.replace("former_upstreams:\n  - {kind: openai}", "#")
    file.write_text(before)
    service: Service = serve(config)
    own = Upstream(redis.url(SERVICE_DB))
    token = providers.token("login", aud="acme-moving", sub=f"moves-{secrets.token_hex(4)}")
    old = mint(service, token)["id"]
    assert openai.status(old) == "active"
    if how == "reloaded":
        file.write_text(after)
        eventually(lambda: "policies_reloaded" in service.process.text())
    else:
        service.close()
        file.write_text(after)
        service = serve(config)
    new = mint(service, token)["id"]
    assert (openai.find(new), own.status(new)) == (None, "active")
    report = ask(service, token, LOGOUT).json()
    if how.endswith("not named"):
        assert report == {"cancelled": 1, "pending": 1}
        assert openai.status(old) == "active"
    else:
        assert report == {"cancelled": 2, "pending": 0}
        assert (openai.status(old), own.status(new)) == ("cancelled", "cancelled")
