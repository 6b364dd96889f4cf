"""What is wrong with a call: the answer stays vague, and the log's line says what is there, and what would be right."""

import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from api.parts import Issuer, eventually
from api.stack import Service, Someone
from support.tokens import Signer

pytestmark = pytest.mark.process

SESSIONS = "/v1/chatkit/sessions"
Token = Callable[[Issuer], str]


def claims(**changes: Any) -> Token:
    return lambda issuer: issuer.token("acme", "alice", **changes)


def ahead(**seconds: float) -> Token:
    return lambda issuer: issuer.token("acme", "alice", **{name: time.time() + s for name, s in seconds.items()})


def signed(**how: Any) -> Token:
    return lambda issuer: Signer(issuer.url, "acme-app", **how).token()


TOKENS: dict[str, tuple[Token, str, str]] = {
    "another audience": (
        claims(aud="acme-spa"),
        "invalid_token",
        r"^aud is none .*: it is 'acme-spa', .*tenant acme wants 'acme-app'",
    ),
    "another issuer": (
        claims(iss="https://else.example/"),
        "invalid_token",
        r"^iss is none .*: it is 'https://else\.example/', the tenant files have 'http://127",
    ),
    "an issuer with a slash too many": (
        lambda issuer: issuer.token("acme", "alice", iss=f"{issuer.url}/"),
        "invalid_token",
        r"it is 'http://[\d.:]+/', tenant \w+ has 'http://[\d.:]+': write the slash as the token does",
    ),
    "an issuer that tries to forge a line": (
        claims(iss='x\n{"event": "request"}' + "y" * 500),
        "invalid_token",
        r"""it is 'x\\n\{"event": "request"\}y{50,100}'…, the""",
    ),
    "no issuer": (claims(iss=None), "invalid_token", "the token names none"),
    "the issuer's clock ahead": (
        ahead(iat=95, exp=700),
        "invalid_token",
        r"iat is 9[45] s ahead, leeway 30 s: the clock here or the issuer's is wrong",
    ),
    "a token for later": (ahead(nbf=95), "invalid_token", r"nbf is 9[45] s ahead, leeway 30 s"),
    "an old token": (
        ahead(iat=-700, exp=-100),
        "token_expired",
        r"^expired by its exp: 10[01] s ago, leeway 30 s; if it is new, the clock here or the issuer's is wrong",
    ),
    "a token of last week": (
        ahead(iat=-700_000, exp=700),
        "invalid_token",
        r"^older than max_age: 70000\d s, tenant \w+ has max_age 86400",
    ),
    "an algorithm of another kind": (
        signed(alg="RS256"),
        "invalid_token",
        r"^alg is not allowed for this issuer: it is 'RS256', tenant acme has ES256",
    ),
    "an unknown key": (
        signed(kid="k9"),
        "invalid_token",
        r"names kid 'k9' \('ES256'\), the issuer's keys are 'k1'",
    ),
    "another's signature": (signed(kid="k1"), "invalid_token", "another key did, or the token was changed on its way"),
    "an ID token": (claims(nonce="n"), "invalid_token", "have the page send that one, or set `accept_id_tokens`"),
    "an opaque token": (lambda _: "opaque-0123456789", "invalid_token", r"^1 segments .*: an opaque token\? "),
    "an encrypted token": (lambda _: "a.b.c.d.e", "invalid_token", r"encrypted token \(JWE\), which is not read"),
    "no token, says a page": (lambda _: "undefined", "invalid_token", "the word undefined: the caller had none"),
}


def reason(service: Service, answer: httpx2.Response) -> str:
    return str(service.line(answer).get("reason"))


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_wrong(service: Service, issuer: Issuer, name: str) -> None:
    make, code, says = TOKENS[name]
    token = make(issuer)
    answer = service.http.post(SESSIONS, headers={"authorization": f"Bearer {token}"})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (401, code)
    assert body["detail"] in {"The access token is not valid here", "The access token has expired"}
    assert re.search(says, reason(service, answer)), reason(service, answer)
    assert token not in service.process.text() or len(token) < 20


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "no Authorization header"),
        ("Bearer", "no token after `Bearer`: is the caller's variable empty?"),
        ("{token}", "one word: is `Bearer` missing before the token?"),
        ("Basic YWxpY2U6c2VjcmV0", "of another kind"),
    ],
)
def test_no_token(service: Service, someone: Someone, header: str | None, says: str) -> None:
    token = someone().token
    headers = {"authorization": header.replace("{token}", token)} if header is not None else {}
    answer = service.http.post(SESSIONS, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_credentials")
    assert says in reason(service, answer)
    assert token not in service.process.text()


def test_a_token_of_another_tenant(service: Service, someone: Someone) -> None:
    headers = {**someone("acme").headers, "chatkit-tenant": "globex"}
    answer = service.http.post(SESSIONS, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "policy_denied")
    assert reason(service, answer) == "the token is genuine, but fits acme, not 'globex' of ChatKit-Tenant"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"workflow": }', "not JSON"),
        (b"[]", "object"),
        (b'{"workflow": "wf_acme"}', "workflow"),
        (b'{"wrkflow": {"id": "wf_acme"}}', "wrkflow"),
    ],
)
def test_a_body_that_is_wrong(someone: Someone, body: bytes, says: str) -> None:
    """Here the answer itself says it: the body is the caller's own."""
    alice = someone()
    headers = {**alice.headers, "content-type": "application/json"}
    answer = alice.service.http.post(SESSIONS, headers=headers, content=body)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (400, "invalid_request")
    assert says in f"{told.get('field')} {told['detail']}"


def test_a_page_that_no_tenant_lists(service: Service) -> None:
    headers = {"origin": "https://app.nobody.example", "access-control-request-method": "POST"}
    answer = service.http.options(SESSIONS, headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    line = service.line(answer)
    assert (line["origin"], "`cors.origins` of the tenant's file" in line["cors"]) == (headers["origin"], True)


def test_a_page_that_another_tenant_lists(someone: Someone) -> None:
    """Its browser keeps the answer from it, and tells the page's author nothing but `CORS error`."""
    alice = someone()
    answer = alice.service.http.post(SESSIONS, headers={**alice.headers, "origin": "https://app.nobody.example"})
    assert answer.status_code == 200
    line = alice.service.line(answer)
    assert (line["origin"], line["outcome"]) == ("https://app.nobody.example", "ok")
    assert "this tenant doesn't list" in line["cors"]
    own = alice.service.http.post(SESSIONS, headers={**alice.headers, "origin": alice.service.url})
    assert "cors" not in alice.service.line(own)


def test_https_to_the_port_of_http(service: Service) -> None:
    address = urlsplit(service.url)
    context = ssl.create_default_context()
    with socket.create_connection((address.hostname, address.port)) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="localhost")
    line = eventually(lambda: next((line for line in service.lines() if "Invalid HTTP" in line["event"]), None))
    assert line
    assert "TLS ends at the proxy" in line["hint"]


@pytest.mark.parametrize(
    ("tenant", "code", "says"),
    [
        ("lost", "upstream_refused", "404"),
        ("nowhere", "upstream_unavailable", "connection refused"),
    ],
)
def test_an_upstream_that_is_wrong(someone: Someone, tenant: str, code: str, says: str) -> None:
    alice = someone(tenant)
    answer = alice.mint()
    assert answer.json()["code"] == code
    assert says in reason(alice.service, answer)
