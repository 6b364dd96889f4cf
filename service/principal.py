"""Who is asking, and whom a tenant believes: frozen values, no behaviour."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

Claims = Mapping[str, Any]
"""The payload of a token whose signature, issuer, audience and times were verified."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Keys by way of the issuer's configuration document (OIDC Discovery 1.0 §4), which must name *issuer*."""

    issuer: str
    url: str


@dataclass(frozen=True, slots=True)
class JwksUrl:
    """Keys from a JWK Set over HTTP."""

    url: str


@dataclass(frozen=True, slots=True)
class JwksFile:
    """Keys from a JWK Set in a file, read again when it changes."""

    path: Path


@dataclass(frozen=True, slots=True)
class InlineJwks:
    """Keys written into the tenant file itself: the JWK Set's canonical JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """One secret for the HS algorithms, at least 32 bytes (RFC 7518 §3.2)."""

    secret: SecretStr


KeySource = Discovery | JwksUrl | JwksFile | InlineJwks | SharedSecret


@dataclass(frozen=True, slots=True)
class Trust:
    """One `identity` entry of a tenant: which tokens it believes, and what it reads in them.

    `matches`, `subject` and `login` are compiled expressions over verified claims; each raises `ValueError`
    where it can't be evaluated, and what `subject` and `login` return is not checked yet. Durations are seconds.
    """

    tenant: str
    issuer: str
    audiences: frozenset[str]
    """Empty: of tokens that carry no `aud`."""
    algorithms: frozenset[str]
    keys: KeySource
    matches: Callable[[Claims], bool]
    subject: Callable[[Claims], Any]
    login: Callable[[Claims], Any]
    authorized_parties: frozenset[str] = frozenset()
    """Whom a token may have been issued to (`azp`); empty: anybody."""
    typ: str | None = None
    leeway: float = 30.0
    max_age: float = 86_400.0
    session_ends_with_token: bool = False
    accept_id_tokens: bool = False
    logout_audiences: frozenset[str] = frozenset()
    """Of this issuer's logout tokens: they are addressed to the app that logged the user in."""
    logout_allows_missing_exp: bool = False
    logout_allows_missing_typ: bool = False

    @property
    def fence_for(self) -> float:
        """How long a logout must be remembered so that no older token outlives it, in seconds."""
        return self.max_age + 2 * self.leeway


@dataclass(frozen=True, slots=True)
class EndedLogin:
    """What a provider says is over, in one tenant: a login, or (`login` None) every login of the subject.

    `subject` is None where the provider names the login alone. One of the two is there.
    """

    tenant: str
    issuer: str
    subject: str | None
    login: str | None


@dataclass(frozen=True, slots=True)
class TokenCookie:
    """A tenant that takes its access tokens from a cookie, of pages of these origins alone."""

    tenant: str
    name: str
    origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Visitors:
    """A tenant that lets people in who are not logged in, on pages of these origins; *max_age* is in seconds."""

    tenant: str
    origins: frozenset[str]
    max_age: int


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A server that may act for a tenant. The file holds the key's SHA-256, the server the key."""

    tenant: str
    name: str
    digest: bytes
    rights: frozenset[str]


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller of one tenant.

    `login` is the session (`sid`) at the identity provider *issuer*, None where the tokens carry none. `issued_at`
    and `expires_at` are the token's, in Unix seconds.
    """

    tenant: str
    subject: str
    login: str | None
    issued_at: float
    expires_at: float
    claims: Claims = field(repr=False)
    ends_with_token: bool = False
    visitor: bool = False
    issuer: str = ""
