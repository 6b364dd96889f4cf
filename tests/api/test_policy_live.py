"""Changing policy on a running service, asking it to explain itself, and the commands beside it."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import Caller, Service
from support.processes import ROOT, clean_environ
from support.tenants import tenant_file, write_config
from support.zygote import Call, Ran, zygote

ADMIN_KEY = "an-admin-key-of-thirty-two-characters"


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Path:
    """A configuration that the tests may write to."""
    return write_config(tmp_path_factory.mktemp("api-editable") / "config", policy(issuer, 1))


def policy(issuer: Issuer, number: int, **sections: Any) -> dict[str, Any]:
    session = {"workflow": {"id": f"wf_{number}"}}
    return tenant_file("acme", issuer.identity("acme"), session=session, **sections)


@pytest.fixture(scope="module")
def running(editable: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    output = tmp_path_factory.mktemp("api-living") / "log"
    service = Service(output, editable, redis_server.url(SERVICE_DB), CHATKIT_MINT_ADMIN_KEY=ADMIN_KEY)
    try:
        yield service.wait()
    finally:
        service.close()


@pytest.fixture
def living(running: Service, editable: Path, issuer: Issuer) -> Service:
    """A service on the first policy, whatever the test before left."""
    (editable / "tenants" / "globex.yaml").unlink(missing_ok=True)
    write_config(editable, policy(issuer, 1))
    running.process.popen.send_signal(signal.SIGHUP)
    claims = {"tenant": "acme", "claims": {"sub": "nobody"}}
    eventually(
        lambda: (
            admin(running, "/admin/explain", claims).json()["body"]["workflow"]["id"] == "wf_1"
            and ready(running)["status"] == "ready"
            and len(admin(running, "/admin/tenants").json()["data"]) == 1
        )
    )
    return running


def ready(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = service.ops("/readyz").json()
    return answer


def test_a_hangup_puts_new_files_in_force(living: Service, editable: Path, issuer: Issuer) -> None:
    alice = Caller(living, issuer, "acme", "live-1")
    assert alice.minted()["workflow"]["id"] == "wf_1"
    write_config(editable, policy(issuer, 2))
    living.process.popen.send_signal(signal.SIGHUP)
    eventually(lambda: alice.minted()["workflow"]["id"] == "wf_2", within=5)


def test_a_hangup_reads_secrets_again_though_no_tenant_file_changed(living: Service, editable: Path) -> None:
    secret = editable / "secret"
    secret.write_text("an old secret, of more than 32 bytes")
    identity = {
        "issuer": "https://hs.example/",
        "audience": "a",
        "algorithms": ["HS256"],
        "secret": {"file": str(secret)},
    }
    write_config(editable, tenant_file("globex", identity))

    def status(key: str) -> int:
        now = int(time.time())
        claims = {"iss": "https://hs.example/", "aud": "a", "sub": "x", "iat": now, "exp": now + 60}
        token = jwt.encode(claims, key, "HS256")
        return living.http.get("/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}"}).status_code

    eventually(lambda: status("an old secret, of more than 32 bytes") == 200)
    secret.write_text("a new secret, of more than 32 bytes.")
    living.process.popen.send_signal(signal.SIGHUP)
    eventually(lambda: status("a new secret, of more than 32 bytes.") == 200, within=5)
    assert status("an old secret, of more than 32 bytes") == 401


def test_a_broken_file_changes_nothing_and_is_told(living: Service, editable: Path, issuer: Issuer) -> None:
    alice, before = Caller(living, issuer, "acme", "live-2"), ready(living)["checks"]["policies"]["version"]
    write_config(editable, policy(issuer, 3, quota={"mints": ["often"]}))
    eventually(lambda: ready(living)["checks"]["policies"]["not_reloaded"], within=8)
    told = ready(living)
    assert (told["status"], told["checks"]["policies"]["version"]) == ("degraded", before)
    assert "acme.yaml" in told["checks"]["policies"]["not_reloaded"][0]
    assert living.ops("/readyz").status_code == 200
    assert alice.minted()["workflow"]["id"] == "wf_1"
    assert living.counted("policy_loads", outcome="failed") >= 1
    write_config(editable, policy(issuer, 4))
    eventually(lambda: alice.minted()["workflow"]["id"] == "wf_4", within=8)
    assert ready(living)["status"] == "ready"


def test_a_tenant_that_is_added_can_be_used_at_once(living: Service, editable: Path, issuer: Issuer) -> None:
    write_config(editable, policy(issuer, 1), tenant_file("globex", issuer.identity("globex")))
    living.process.popen.send_signal(signal.SIGHUP)
    bob = Caller(living, issuer, "globex", "live-3")
    eventually(lambda: bob.mint().status_code == 200, within=5)
    assert bob.log_out().json()["pending"] == 0


def admin(service: Service, path: str, body: Any = None, key: str = ADMIN_KEY) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    if body is None:
        return httpx2.get(service.operations + path, headers=headers, trust_env=False)
    return httpx2.post(service.operations + path, headers=headers, json=body, trust_env=False)


def test_admin_routes_need_the_admin_key(living: Service, issuer: Issuer) -> None:
    for key in ("wrong" * 10, ADMIN_KEY[:-1], Caller(living, issuer, "acme", "live-4").token):
        assert admin(living, "/admin/tenants", key=key).status_code == 401
    assert living.ops("/admin/tenants").json()["code"] == "missing_credentials"
    assert living.http.get("/admin/tenants").status_code == 404


def test_without_an_admin_key_there_are_no_admin_routes(service: Service) -> None:
    assert admin(service, "/admin/tenants").status_code == 404


def test_tenants_and_sessions_are_listed(living: Service, issuer: Issuer) -> None:
    alice = Caller(living, issuer, "acme", "live/5|x")
    minted = alice.minted()
    (listed,) = admin(living, "/admin/tenants").json()["data"]
    assert (listed["tenant"], listed["upstream"]) == ("acme", "authority")
    answer = admin(living, "/admin/tenants/acme/users/live/5|x/sessions")
    assert [each["id"] for each in answer.json()["data"]] == [minted["id"]]
    assert minted["client_secret"] not in answer.text
    assert admin(living, "/admin/tenants/nobody/users/a/sessions").status_code == 404


def test_explain_is_what_a_mint_gives(living: Service, issuer: Issuer) -> None:
    told = admin(living, "/admin/explain", {"tenant": "acme", "claims": {"sub": "live-6"}}).json()
    minted = Caller(living, issuer, "acme", "live-6").minted()
    assert told["granted"]
    assert told["body"]["user"] == minted["user"]
    assert told["body"]["workflow"]["id"] == minted["workflow"]["id"]
    assert {each["field"]: each["set_by"] for each in told["fields"]}["workflow.id"] == "tenant"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"tenant": "acme"}, 400),
        ({"tenant": "acme", "claims": {}}, 400),
        ({"tenant": "acme", "claims": {"sub": "a"}, "visitor": True}, 400),
        ({"tenant": "acme", "claims": {"sub": "a"}, "request": {"x": 1}}, 400),
        ({"tenant": "nobody", "claims": {"sub": "a"}}, 404),
    ],
)
def test_explain_refuses_what_it_can_not_explain(living: Service, body: dict[str, Any], status: int) -> None:
    assert admin(living, "/admin/explain", body).status_code == status


def run(*arguments: str, config: Path, given: str = "") -> Ran:
    return zygote().run(Call(arguments, clean_environ(CHATKIT_MINT_CONFIG_DIR=str(config)), written=given))


def test_the_explain_command_tells_people_and_machines(editable: Path) -> None:
    people = run("explain", "--tenant", "acme", "--claims", "-", config=editable, given='{"sub": "alice"}')
    assert (people.code, people.err) == (0, "")
    assert "workflow.id" in people.out
    machines = run("explain", "--tenant", "acme", "--claims", "-", "--json", config=editable, given='{"sub": "alice"}')
    assert json.loads(machines.out)["user"] == "acme:alice"


def test_the_explain_command_exits_1_for_a_denial_and_2_for_bad_input(editable: Path, tmp_path: Path) -> None:
    (tmp_path / "wish").write_text('{"workflow": {"id": "wf_other"}}')
    denied = run(
        "explain",
        "--tenant",
        "acme",
        "--claims",
        "-",
        "--request",
        str(tmp_path / "wish"),
        config=editable,
        given='{"sub": "a"}',
    )
    assert denied.code == 1
    assert "workflow.id is outside client_may" in denied.out
    assert run("explain", "--tenant", "acme", "--claims", "-", config=editable, given="[]").code == 2
    nobody = run("explain", "--tenant", "acmee", "--claims", "-", config=editable, given='{"sub": "a"}')
    assert (nobody.code, nobody.err) == (1, "there is no tenant 'acmee'; there are: acme\n")


def test_the_schema_command_prints_the_schema(editable: Path) -> None:
    printed = run("schema", config=editable)
    assert json.loads(printed.out) == json.loads((ROOT / "config" / "schema" / "tenant.schema.json").read_text())


def test_check_runs_the_operators_tests(editable: Path) -> None:
    tests = editable / "tenants" / "acme.test.yaml"
    tests.write_text("tests:\n  - {name: right, claims: {sub: a}, grant: {workflow: {id: wf_1}}}\n")
    assert "1 test passed" in run("check", config=editable).out
    tests.write_text("tests:\n  - {name: wrong, claims: {sub: a}, grant: {workflow: {id: wf_9}}}\n")
    failed = run("check", config=editable)
    assert failed.code == 1
    assert "acme.test.yaml:2:5: 'wrong': workflow.id: expected 'wf_9', got 'wf_1', set by tenant" in failed.out
    assert json.loads(run("check", "--json", config=editable).out)["mistakes"][0]["line"] == 2


def test_a_token_needs_no_secret_of_anybodys_upstream(tmp_path: Path, issuer: Issuer) -> None:
    """In the second terminal the API key isn't set, and need not be."""
    identity = {"issuer": "http://127.0.0.1:8081", "audience": "a", "algorithms": ["ES256"]}
    config = write_config(
        tmp_path / "config",
        tenant_file("acme", identity, upstream={"kind": "openai"}),
        tenant_file("globex", issuer.identity("globex"), upstream={"api_key": {"env": "NOT_SET_HERE"}}),
    )
    printed = run("token", "--tenant", "acme", "--user", "alice", "--dir", str(tmp_path), config=config)
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.count(".") == 2
    checked = run("check", config=config)
    assert checked.code == 1
    assert checked.out.count("NOT_SET_HERE is not set") == 1
