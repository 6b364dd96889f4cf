"""What a route promises, declared beside it: who may call, what goes in, what comes out, which refusals are possible.

`/openapi.json` and `/docs` are made of this. Tests compare it with the routing table and with every answer they get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pydantic import TypeAdapter

from service.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    InvalidToken,
    IssuerUnavailable,
    LoginRevoked,
    MissingCredentials,
    Overloaded,
    PolicyDenied,
    RateLimited,
    Refusal,
    StoreUnavailable,
    TenantBlocked,
    TokenExpired,
    TooManyLiveSessions,
    UnsupportedMediaType,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
    UserMismatch,
)

Refusals = tuple[type[Refusal], ...]

BY_CALLER: Final[Refusals] = (
    InvalidRequest,  # several tenants fit the caller, and none is chosen
    MissingCredentials,
    InvalidToken,
    TokenExpired,
    PolicyDenied,
    IssuerUnavailable,
)
"""What telling who calls may end in."""
BY_BODY: Final[Refusals] = (InvalidRequest, BodyTooLarge, UnsupportedMediaType)
"""What reading a JSON body may end in."""

BY_MINT: Final[Refusals] = (
    *BY_CALLER,
    *BY_BODY,
    LoginRevoked,
    UserMismatch,
    TenantBlocked,
    RateLimited,
    TooManyLiveSessions,
    UpstreamRefused,
    UpstreamInvalid,
    UpstreamUnavailable,
    UpstreamTimeout,
    Overloaded,
    StoreUnavailable,
)
"""What minting may end in."""


class Credential(Enum):
    """Who may call: the text is for people."""

    USER = "a user or visitor: access token, the tenant's token cookie, or the visitor cookie"
    SERVICE = "one of the tenant's servers: service key"
    SECRET = "a chat: the client secret of a session"  # noqa: S105  (no secret)
    LOGOUT_TOKEN = "an identity provider: the logout token in the body"  # noqa: S105  (no secret)
    NONE = "anybody"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, and its promise. *shape* and *answer* are of the bodies; None: there is none."""

    method: str
    path: str
    name: str
    summary: str
    credential: Credential
    refusals: Refusals
    shape: TypeAdapter[Any] | None = None
    answer: TypeAdapter[Any] | None = None
    example: Mapping[str, Any] | None = None
    """A body that makes sense."""
    media_type: str = "application/json"
    """Of the request's body."""
    answers: str | None = "application/json"
    """Media type of the answer; None: it has no body."""
    body_required: bool = False
    cached: bool = False
    """Whether the answer has an ETag, and 304 is possible."""
    minting: bool = False
    """Whether what it does counts against limits, which its headers then tell."""

    @property
    def possible(self) -> Refusals:
        """Return every refusal that it may answer, by status; a defect of ours is possible everywhere."""
        return tuple(sorted({*self.refusals, InternalError}, key=lambda kind: (kind.status, kind.code)))

    @property
    def template(self) -> str:
        """Return the path as OpenAPI writes it."""
        return self.path.replace(":path}", "}")


def every_refusal() -> Sequence[type[Refusal]]:
    """Return all refusals that have a code of their own, by status."""

    def below(kind: type[Refusal]) -> set[type[Refusal]]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    named = {kind for kind in below(Refusal) if "advice" in vars(kind)}
    return sorted(named, key=lambda kind: (kind.status, kind.code))
