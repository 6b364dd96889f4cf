"""A provider that logs people in and out, and a service that believes it."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from api.parts import RedisServer, eventually
from api.stack import Caller, Service, Upstream
from identity.parts import Issuer
from service.identity.claims import LOGOUT_EVENT
from support.forge import sign
from support.tokens import Signer

ROUTE = "/v1/logout/backchannel"
EVENTS: dict[str, Any] = {LOGOUT_EVENT: {}}
OWN_KEYS = Signer("", kid="own")
"""Of the tenant `own-keys`, which believes what these sign in the issuer's name; nobody else does."""


def entry(issuer: Issuer, audience: str, **changes: Any) -> dict[str, Any]:
    """Whom a tenant believes, as it stands in its file."""
    return {"issuer": issuer.url, "audience": audience, "algorithms": ["ES256"], **changes}


@dataclass(frozen=True)
class Provider:
    """Access tokens as front ends get them, and logout tokens as the provider sends them to us."""

    issuer: Issuer

    def token(self, tenant: str, subject: str, **claims: Any) -> str:
        return self.issuer.signer.token(subject, **{"aud": f"{tenant}-app", **claims})

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}

    def claims(self, who: Caller, **changes: Any) -> dict[str, Any]:
        """A good logout token's, of this login of this user; a change to None takes a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer.url,
            "aud": f"{who.tenant}-app",
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": EVENTS,
            "sub": who.subject,
            "sid": who.login,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def logout_token(
        self, who: Caller, *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any
    ) -> str:
        shown = {name: value for name, value in {**self.header, **(header or {})}.items() if value is not None}
        return sign("ES256", key or self.issuer.signer.key, shown, self.claims(who, **changes))


@dataclass
class Stack:
    """The service, the Redis that it and its authority keep everything in, and the provider."""

    service: Service
    redis: RedisServer
    provider: Provider
    upstream: Upstream

    def someone(self, tenant: str = "acme", subject: str | None = None, /, **claims: Any) -> Caller:
        """Log somebody in whom no other test knows."""
        return self.login(tenant, subject or f"user-{secrets.token_hex(6)}", secrets.token_hex(8), **claims)

    def login(self, tenant: str, subject: str, sid: str, /, **claims: Any) -> Caller:
        return Caller(self.service, self.provider, tenant, subject, sid, claims)  # type: ignore[arg-type]

    def post(self, token: str, **fields: str) -> httpx2.Response:
        return self.service.http.post(ROUTE, data={"logout_token": token, **fields})

    def log_out(self, who: Caller, **changes: Any) -> httpx2.Response:
        """Send a good logout token of *who*, changed."""
        return self.post(self.provider.logout_token(who, **changes))

    def logged_out(self, who: Caller, **changes: Any) -> None:
        accepted(self.log_out(who, **changes))

    def status(self, session: dict[str, Any]) -> str:
        return self.upstream.status(session["id"])

    def cancelled(self, *sessions: dict[str, Any]) -> None:
        """Wait until the authority itself has cancelled them: nobody waits for that but us."""
        for session in sessions:
            eventually(lambda session=session: self.status(session) == "cancelled")  # type: ignore[misc]


def accepted(answer: httpx2.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.content == b""
    assert answer.headers["cache-control"] == "no-store"


def refused(answer: httpx2.Response, status: int = 400) -> None:
    """Every no that is the sender's fault: §2.8 of the specification."""
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == "invalid_request"
    assert answer.headers["cache-control"] == "no-store"


def unavailable(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"] == "temporarily_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["cache-control"] == "no-store"


def is_out(who: Caller) -> None:
    answer = who.mint()
    assert (answer.status_code, answer.json().get("code")) == (401, "login_revoked"), answer.text


def is_in(who: Caller) -> None:
    answer = who.mint()
    assert answer.status_code == 200, answer.text


def later(seconds: int = 2) -> int:
    """An `iat` after a logout of now: times in tokens are whole seconds."""
    return int(time.time()) + seconds
