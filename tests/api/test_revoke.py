"""An operator revokes a tenant, by command and by admin route, and lets it in again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import API_KEYS, Caller, Service, Upstream
from support.processes import clean_environ
from support.zygote import Call, Ran, zygote

KEY = "an-admin-key-of-thirty-two-characters"
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def service(config: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an admin key."""
    service = Service(
        tmp_path_factory.mktemp("api-revoke") / "log", config, redis_server.url(SERVICE_DB), CHATKIT_MINT_ADMIN_KEY=KEY
    )
    try:
        yield service.wait()
    finally:
        service.close()


@pytest.fixture
def tenant(service: Service) -> Iterator[str]:
    """A tenant that may be revoked; others' tests find it open again."""
    yield "globex"
    eventually(lambda: ask(service, "/admin/tenants/globex/unblock", "POST").status_code == 200)


def ask(service: Service, path: str, method: str = "GET", key: str = KEY, **options: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.request(method, service.operations + path, headers=headers, trust_env=False, **options)


def command(service: Service, *words: str, key: str = KEY, url: str | None = None) -> Ran:
    environ = clean_environ(CHATKIT_MINT_ADMIN_KEY=key, **API_KEYS)
    return zygote().run(Call([*words, "--url", url or service.operations], environ))


def test_the_command_revokes_tells_and_unblocks(
    service: Service, issuer: Issuer, upstream: Upstream, tenant: str
) -> None:
    users = [Caller(service, issuer, tenant, f"revoked-{number}") for number in range(5)]
    ids = [user.minted()["id"] for user in users]
    seen = command(service, "sessions", "--tenant", tenant, "--user", users[0].subject)
    assert ids[0] in seen.out

    told = command(service, "revoke", "--tenant", tenant, "--yes", "--json")
    assert told.code == 0, told.err
    progress = json.loads(told.out)
    assert (progress["state"], progress["remaining"], progress["failed"]) == ("done", 0, 0)
    assert progress["cancelled"] >= 5
    assert {upstream.status(each) for each in ids} == {"cancelled"}

    refused = users[0].again().mint()
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_blocked")
    assert users[0].log_out().status_code == 200  # a logout is never refused for it
    standing = command(service, "sessions", "--tenant", tenant)
    assert "blocked since" in standing.out
    assert "all ended" in standing.out
    listed = {each["tenant"]: each for each in ask(service, "/admin/tenants").json()["data"]}
    assert all({*window} == {"count", "seconds"} for each in listed.values() for window in each["limits"]["mints"])
    assert any(each["limits"]["mints"] for each in listed.values())
    assert listed[tenant]["blocked_since"]
    assert listed["acme"]["blocked_since"] is None

    opened = command(service, "unblock", "--tenant", tenant)
    assert "can mint again" in opened.out
    assert "was not blocked" in command(service, "unblock", "--tenant", tenant).out
    old = users[1].mint()
    assert (old.status_code, old.json()["code"]) == (401, "login_revoked")


def test_the_route_begins_it_and_tells_how_far_it_is(service: Service, issuer: Issuer, tenant: str) -> None:
    Caller(service, issuer, tenant, "revoked-by-route").minted()
    begun = ask(service, f"/admin/tenants/{tenant}/revoke", "POST", json={"rate": 500})
    assert (begun.status_code, begun.json()["rate"]) == (202, 500)
    done = eventually(lambda: ask(service, f"/admin/tenants/{tenant}/revoke").json()["state"] == "done")
    assert done


@pytest.mark.parametrize("body", [{"rate": 0}, {"rate": "fast"}, {"pace": 1}])
def test_a_wrong_body_is_named_and_revokes_nothing(service: Service, body: dict[str, Any]) -> None:
    answer = ask(service, "/admin/tenants/acme/revoke", "POST", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, next(iter(body)))
    assert ask(service, "/admin/tenants/acme/revoke").json()["blocked_since"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/tenants/acme/revoke"),
        ("POST", "/admin/tenants/acme/revoke"),
        ("POST", "/admin/tenants/acme/unblock"),
    ],
)
def test_only_the_admin_key_opens_it(service: Service, method: str, path: str) -> None:
    answer = ask(service, path, method, key="x" * 40)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert ask(service, path.replace("acme", "nobody"), method).status_code == 404


def test_what_stands_in_the_way_of_a_command_is_told(service: Service) -> None:
    wrong = command(service, "revoke", "--tenant", "acme", "--yes", key="x" * 40)
    assert (wrong.code, wrong.err) == (1, "the service does not take this admin key\n")
    unknown = command(service, "sessions", "--tenant", "nobody")
    assert "no tenant 'nobody'" in unknown.err
    asked = command(service, "revoke", "--tenant", "acme")
    assert (asked.code, asked.out) == (1, "")
    assert "say --yes" in asked.err
    assert ask(service, "/admin/tenants/acme/revoke").json()["blocked_since"] is None
    away = command(service, "sessions", "--tenant", "acme", url="http://127.0.0.1:1")
    assert away.code == 1
    assert "nobody answers at http://127.0.0.1:1" in away.err
