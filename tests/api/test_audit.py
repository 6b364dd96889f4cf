"""The audit stream: who did what to which sessions, under pseudonyms where a tenant wants them, and no secret."""

import hashlib
import hmac
import json
import re
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually, stopped_exit
from api.stack import API_KEYS, Caller, Service
from service.identity.claims import LOGOUT_EVENT
from service.identity.service_keys import make_service_key
from support.forge import sign
from support.processes import ROOT, Process, clean_environ
from support.tenants import tenant_file, write_config

pytestmark = pytest.mark.process

AUDIT_DB = 2
"""Nobody else's: another replica might make our cancels, and tell of them in its own stream."""
ADMIN_KEY = "an-admin-key-of-thirty-two-characters"
PSEUDONYM_KEY = "a-key-for-pseudonyms-of-32-characters"
PAGE = "https://www.example"
SERVER_KEY, SERVER_SHA256 = make_service_key()
READER_KEY, READER_SHA256 = make_service_key()
SECRETS = {
    **API_KEYS,
    "CHATKIT_MINT_ADMIN_KEY": ADMIN_KEY,
    "CHATKIT_MINT_VISITOR_KEYS": "a-key-for-cookies-of-32-characters-or-more",
    "PSEUDONYM_KEY": PSEUDONYM_KEY,
}
IN_ALL = {"stream", "time", "event", "tenant"}
OF_REQUESTS = {"request_id", "trace_id", "service_key"}


@dataclass
class Stack:
    """A service whose audit stream is a file, and the identity provider of its tenants."""

    service: Service
    issuer: Issuer
    file: Path
    config: Path

    def someone(self, tenant: str = "acme", **claims: Any) -> Caller:
        return Caller(self.service, self.issuer, tenant, f"user-{secrets.token_hex(6)}", claims=claims)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().rpartition("\n")[0].splitlines()]

    def told(self, answer: httpx2.Response, event: str, **facts: Any) -> dict[str, Any]:
        """The one line of a request with these facts."""
        mine = {"event": event, "request_id": answer.headers["x-request-id"], **facts}
        found = eventually(lambda: [line for line in self.lines() if mine.items() <= line.items()])
        assert len(found) == 1, found
        return found[0]

    def admin(self, path: str, key: str = ADMIN_KEY, method: str = "POST") -> httpx2.Response:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.request(method, f"{self.service.operations}/admin/{path}", headers=headers, trust_env=False)

    def as_server(self, who: Caller, doing: str = "logout", key: str = SERVER_KEY) -> httpx2.Response:
        path = f"/v1/tenants/{who.tenant}/users/{who.subject}/{doing}"
        method = "POST" if doing == "logout" else "GET"
        return self.service.http.request(method, path, headers={"authorization": f"Bearer {key}"})

    def as_provider(self, who: Caller) -> httpx2.Response:
        now = int(time.time())
        claims = {"iss": self.issuer.url, "aud": f"{who.tenant}-app", "iat": now, "exp": now + 60, "sub": who.subject}
        claims |= {"jti": secrets.token_hex(8), "sid": who.login, "events": {LOGOUT_EVENT: {}}}
        signer = self.issuer._signer
        token = sign("ES256", signer.key, {"alg": "ES256", "kid": signer.kid, "typ": "logout+jwt"}, claims)
        return self.service.http.post("/v1/logout/backchannel", data={"logout_token": token})


def tenants(issuer: Issuer, authorities: dict[str, str], workflow: str = "wf_acme") -> list[dict[str, Any]]:
    def tenant(name: str, upstream: str = "main", **sections: Any) -> dict[str, Any]:
        to = {"kind": "openai", "base_url": authorities[upstream], "api_key": {"env": "ACME_KEY"}}
        return tenant_file(name, issuer.identity(name), upstream=to, **sections)

    keys = [
        {"name": "crm", "sha256": SERVER_SHA256, "may": ["logout", "read"]},
        {"name": "reader", "sha256": READER_SHA256, "may": ["read"]},
    ]
    rules = [{"name": "no robots", "when": "has(claims.robot)", "deny": "No robots"}]
    return [
        tenant("acme", service_keys=keys, session={"workflow": {"id": workflow}}),
        tenant("globex"),
        tenant("ruled", rules=rules),
        tenant("tight", quota={"mints": ["1/minute"]}),
        tenant("few", quota={"live_sessions": {"max": 1, "excess": "refuse"}}),
        tenant("rolling", quota={"live_sessions": {"max": 1, "excess": "cancel_oldest"}}),
        tenant("failing", "failing"),
        tenant(
            "quiet",
            service_keys=keys,
            pseudonymous={"key": {"env": "PSEUDONYM_KEY"}},
            visitors={"origins": [PAGE]},
        ),
        tenant("open", visitors={"origins": ["https://open.example"]}),
    ]


@pytest.fixture(scope="module")
def stack(
    issuer: Issuer, authorities: dict[str, str], redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("api-audit")
    config = write_config(home / "config", *tenants(issuer, authorities))
    audit = home / "audit"
    url = redis_server.url(AUDIT_DB)
    service = Service(home / "log", config, url, CHATKIT_MINT_AUDIT_FILE=str(audit), **SECRETS)
    try:
        yield Stack(service.wait(), issuer, audit, config)
    finally:
        service.close()


def hashed(text: str) -> str:
    return "hmac:" + hmac.new(PSEUDONYM_KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def test_a_mint_says_who_which_session_and_by_which_policy(stack: Stack) -> None:
    alice = stack.someone()
    answer = alice.mint()
    line = stack.told(answer, "mint")
    session = answer.json()
    assert line | {"subject": alice.subject, "login": alice.login, "tenant": "acme", "workflow": "wf_acme"} == line
    assert line["user"] == session["user"]
    assert (line["session"], line["expires_at"]) == (session["id"], session["expires_at"])
    assert line["policy"] == stack.service.ops("/readyz").json()["checks"]["policies"]["version"]
    assert line["trace_id"] == stack.service.line(answer)["trace_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_the_start_says_which_policy_is_in_force(stack: Stack) -> None:
    first = stack.lines()[0]
    assert (first["event"], first["outcome"], first["tenants"], first["tenant"]) == ("reload", "started", 9, None)


def test_a_denial_of_somebody_known_says_who_and_why(stack: Stack) -> None:
    robot, tight, few, gone = (stack.someone("ruled", robot=True), *map(stack.someone, ("tight", "few", "acme")))
    tight.minted()
    few.minted()
    assert gone.log_out().status_code == 200
    denied = {
        "policy_denied": (robot, robot.mint()),
        "rate_limited": (tight, tight.mint()),
        "too_many_live_sessions": (few, few.mint()),
        "login_revoked": (gone, gone.mint()),
        "user_mismatch": (alice := stack.someone(), alice.mint(user="mallory")),
        "invalid_request": (alice, alice.mint(colour="red")),
        "upstream_unavailable": (broken := stack.someone("failing"), broken.mint()),
    }
    for code, (who, answer) in denied.items():
        assert answer.json()["code"] == code
        line = stack.told(answer, "denial")
        assert line | {"tenant": who.tenant, "subject": who.subject, "login": who.login, "code": code} == line
        assert (line["action"], "client" in line, "session" in line) == ("mint", False, False)
        assert line["policy"]
    assert stack.told(denied["policy_denied"][1], "denial")["reason"] == "rule 'no robots' denies"


def test_each_action_that_is_refused_is_told_by_its_name(stack: Stack) -> None:
    gone = stack.someone()
    gone.log_out()
    assert stack.told(gone.get("/v1/chatkit/sessions"), "denial")["action"] == "list"
    assert stack.told(gone.cancel("cksess_1"), "denial")["action"] == "cancel"
    assert stack.told(gone.log_out(everywhere=True), "denial")["action"] == "logout"
    assert stack.told(stack.someone().cancel("cksess_1"), "denial")["code"] == "not_found"


def test_a_denial_of_who_is_not_known_says_where_they_came_from(stack: Stack) -> None:
    http, alice = stack.service.http, stack.someone()
    form = {"logout_token": f"{alice.token}x"}
    refused = [
        ("mint", "missing_credentials", http.post("/v1/chatkit/sessions")),
        (
            "mint",
            "invalid_token",
            http.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {alice.token}x"}),
        ),
        ("list", "invalid_token", http.get("/v1/chatkit/sessions", headers={"authorization": "Bearer x.y.z"})),
        ("logout", "invalid_token", stack.as_server(alice, key=f"{SERVER_KEY}x")),
        ("list", "invalid_token", stack.as_server(alice, "sessions", key=alice.token)),
        ("logout", "policy_denied", stack.as_server(alice, key=READER_KEY)),
        ("logout", "invalid_request", http.post("/v1/logout/backchannel", data=form)),
        ("admin", "invalid_token", stack.admin("tenants/globex/revoke", key="x" * 40)),
        ("admin", "invalid_token", stack.admin("tenants", key="x" * 40, method="GET")),
    ]
    for action, code, answer in refused:
        line = stack.told(answer, "denial")
        assert (line["action"], line["code"], line["client"]) == (action, code, "127.0.0.1")
        assert (line["tenant"], "subject" in line) == (None, False)


def test_a_logout_and_its_cancels_are_told_however_it_comes(stack: Stack) -> None:
    for by, log_out in (
        ("user", lambda who: who.log_out()),
        ("service key", stack.as_server),
        ("logout token", stack.as_provider),
    ):
        alice = stack.someone()
        session = alice.minted()
        answer = log_out(alice)
        assert answer.status_code == 200
        line = stack.told(answer, "logout")
        assert (line["by"], line["tenant"], line["subject"]) == (by, "acme", alice.subject)
        assert line.get("login") == (None if by == "service key" else alice.login)
        assert line.get("service_key") == ("crm" if by == "service key" else None)
        cancel = stack.told(answer, "cancel")
        assert cancel | {"session": session["id"], "user": session["user"], "reason": "logout"} == cancel
        assert (cancel["outcome"], cancel["tenant"]) == ("cancelled", "acme")


def test_a_cancel_for_other_reasons(stack: Stack) -> None:
    alice, rolling = stack.someone(), stack.someone("rolling")
    session, first = alice.minted(), rolling.minted()
    assert stack.told(alice.cancel(session["id"]), "cancel", session=session["id"])["reason"] == "cancel"
    answer = rolling.mint()
    assert stack.told(answer, "cancel", session=first["id"])["reason"] == "session_limit"


def test_a_revocation_and_its_end_are_told(stack: Stack) -> None:
    session = stack.someone("globex").minted()
    begun = stack.admin("tenants/globex/revoke")
    assert begun.status_code == 202
    line = stack.told(begun, "revoke")
    assert (line["tenant"], line["by"], line["users"] >= 1) == ("globex", "admin key", True)

    def cancelled() -> list[dict[str, Any]]:
        return [line for line in stack.lines() if line["event"] == "cancel" and line["session"] == session["id"]]

    [cancel] = eventually(cancelled)
    assert (cancel["reason"], cancel["outcome"]) == ("tenant_revoked", "cancelled")
    let_in = eventually(lambda: answer if (answer := stack.admin("tenants/globex/unblock")).is_success else None)
    assert let_in is not None
    assert stack.told(let_in, "unblock")["was_blocked"] is True


def test_a_reload_says_from_which_policy_to_which(stack: Stack, authorities: dict[str, str]) -> None:
    def reloads() -> list[dict[str, Any]]:
        return [line for line in stack.lines() if line["event"] == "reload"]

    told = len(reloads())
    before = reloads()[-1]["policy"]
    new = tenant_file("initech", stack.issuer.identity("initech"))
    write_config(stack.config, *tenants(stack.issuer, authorities, "wf_other"), new)
    line = eventually(lambda: reloads()[told:])[0]
    assert (line["outcome"], line["before"], line["added"], line["removed"]) == ("applied", before, ["initech"], [])
    assert line["policy"] != before
    (stack.config / "tenants" / "acme.yaml").write_text("tenant: [")
    refused = eventually(lambda: reloads()[told + 1 :])[0]
    assert (refused["outcome"], refused["policy"], refused["mistakes"]) == ("refused", line["policy"], 1)
    write_config(stack.config, *tenants(stack.issuer, authorities))


def test_pseudonyms_hide_users_in_every_event(stack: Stack) -> None:
    alice, bob, carol, dave = (stack.someone("quiet") for _ in range(4))
    minted = alice.mint()
    for who in (bob, carol, dave):
        who.minted()
    answers = [minted, alice.log_out(), stack.as_server(bob), stack.as_provider(carol), dave.mint(user="mallory")]
    answers += [alice.mint(), dave.cancel("cksess_1"), dave.log_out(everywhere=True)]
    for answer in answers:
        stack.service.line(answer)
    mint = stack.told(minted, "mint")
    assert mint["subject"] == hashed(f"audit\0quiet\0{alice.subject}")
    assert mint["login"] == hashed(f"audit login\0quiet\0{alice.login}")
    assert stack.told(answers[2], "logout")["subject"] == hashed(f"audit\0quiet\0{bob.subject}")
    assert stack.told(answers[3], "logout")["login"] == hashed(f"audit login\0quiet\0{carol.login}")
    cancel = stack.told(answers[1], "cancel")
    assert cancel["user"] == mint["user"] == minted.json()["user"]
    text = stack.file.read_text()
    for who in (alice, bob, carol, dave):
        for name in (who.subject, f"quiet:{who.subject}", who.login):
            assert name not in text


def test_a_visitor_is_told_of_with_an_address_unless_the_tenant_is_pseudonymous(stack: Stack) -> None:
    for tenant, origin, address in (("quiet", PAGE, None), ("open", "https://open.example", "127.0.0.1")):
        headers = {"origin": origin}
        answer = httpx2.post(f"{stack.service.url}/v1/chatkit/sessions", headers=headers, trust_env=False)
        assert answer.status_code == 200
        line = stack.told(answer, "mint")
        assert (line["visitor"], line["tenant"], line.get("client")) == (True, tenant, address)
        assert stack.service.line(answer).get("client") == address
        cookie = answer.headers["set-cookie"].partition(";")[0]
        returning = {**headers, "cookie": cookie}
        url = f"{stack.service.url}/v1/chatkit/sessions"
        denied = httpx2.post(url, headers=returning, json={"user": "mallory"}, trust_env=False)
        assert stack.told(denied, "denial")["subject"] == line["subject"]
        left = httpx2.post(f"{stack.service.url}/v1/logout", headers=returning, trust_env=False)
        assert stack.told(left, "logout") | {"visitor": True, "subject": line["subject"]} == stack.told(left, "logout")
        assert cookie.partition("=")[2] not in stack.file.read_text()


def test_the_stream_holds_no_secret(stack: Stack) -> None:
    alice = stack.someone()
    session = alice.minted()
    alice.mint(user=alice.token[:400])
    alice.service.http.post("/v1/chatkit/sessions", headers={"authorization": f"Basic {alice.token}"})
    stack.as_server(alice, key=SERVER_KEY[:-1])
    stack.admin("tenants", key=ADMIN_KEY[:-1], method="GET")
    stack.service.line(alice.log_out())
    text = stack.file.read_text()
    for secret in (session["client_secret"], alice.token, SERVER_KEY, READER_KEY, *SECRETS.values()):
        assert secret not in text
        assert secret[-20:] not in text
    assert not re.search(r"ek_[\w-]{20,}|eyJ[\w-]{10,}|cmk_", text)


def test_every_line_is_as_the_document_says(stack: Stack) -> None:
    """Runs after the others of this file, whose lines it looks at."""
    document = (ROOT / "docs/audit.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) \| ([^|]*) \|$", document, re.MULTILINE)
    table = {
        event: (set(re.findall(r"`(\w+)`", always)), set(re.findall(r"`(\w+)`", perhaps)))
        for event, always, perhaps in rows
    }
    seen: dict[str, set[str]] = {}
    for line in stack.lines():
        always, perhaps = table[line["event"]]
        assert always | IN_ALL <= set(line), line
        assert set(line) <= always | perhaps | IN_ALL | OF_REQUESTS, line
        seen.setdefault(line["event"], set()).update(line)
    if "unblock" in seen and "reload" in seen:  # all of the file was run
        assert set(table) - set(seen) == {"log_lines_dropped"}
        for event, fields in seen.items():
            assert table[event][1] - {"client", "issuer"} <= fields, event


def test_the_log_and_the_stream_are_apart(stack: Stack) -> None:
    answer = stack.someone().mint()
    stack.told(answer, "mint")
    assert '"stream":"audit"' not in stack.service.process.text()
    assert all(line["stream"] == "audit" for line in stack.lines())


def test_a_hangup_begins_a_new_file(stack: Stack) -> None:
    moved = stack.file.with_name("audit.1")
    stack.told(stack.someone().mint(), "mint")
    stack.file.rename(moved)
    try:
        stack.service.process.popen.send_signal(signal.SIGHUP)
        eventually(lambda: stack.someone().mint().is_success and stack.file.exists())
        before = moved.read_bytes()
        stack.told(stack.someone().mint(), "mint")
        assert moved.read_bytes() == before
    finally:
        stack.file.write_bytes(moved.read_bytes() + stack.file.read_bytes())


def test_a_path_that_can_not_be_written_ends_the_start(config: Path, redis_server: RedisServer, tmp_path: Path) -> None:
    environ = {"CHATKIT_MINT_CONFIG_DIR": str(config), "CHATKIT_MINT_REDIS_URL": redis_server.url(SERVICE_DB)}
    environ |= {"CHATKIT_MINT_AUDIT_FILE": str(tmp_path / "missing" / "audit"), **API_KEYS}
    process = Process("serve", output=tmp_path / "log", environ=clean_environ(**environ))
    assert stopped_exit(process) == 1
    told = f"CHATKIT_MINT_AUDIT_FILE: can't write to {tmp_path}/missing/audit: No such file or directory\n"
    assert process.text().endswith(told)
    assert "Traceback" not in process.text()
