"""What may be minted and what was minted: frozen values. Secrets stay out of `repr`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import SecretStr

from service.contract import CreateSession


@lru_cache(maxsize=65_536)
def _place(*where: str) -> str:
    return hashlib.blake2b("\0".join(where).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Account:
    """Where a tenant's sessions are issued and with which key. Hashable: breakers and pools go by it."""

    tenant: str
    kind: Literal["openai", "authority"]
    base_url: str = ""
    api_keys: tuple[SecretStr, ...] = ()
    """The first is tried first; the others while keys are being rotated."""
    project: str | None = None
    organization: str | None = None
    max_concurrent: int = 256
    """Mints under way at once, in one process."""
    retry_creates: bool = False
    """Whether a create that may have been carried out is repeated all the same."""

    @property
    def place(self) -> str:
        """A short name of where its sessions live, the same as long as they can be cancelled there.

        Keys are no part of it: they are rotated while sessions live.
        """
        return _place(self.kind, self.base_url, self.project or "", self.organization or "")


class Window(NamedTuple):
    """At most *most* per *seconds*."""

    most: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What admit enforces, of one user but for `tenant_mints`; `live` None means no limit on live sessions."""

    mints: tuple[Window, ...] = ()
    tenant_mints: tuple[Window, ...] = ()
    live: int | None = None
    excess: Literal["refuse", "cancel_oldest"] = "refuse"


@dataclass(frozen=True, slots=True)
class Grant:
    """What policy allows a principal now: the exact create body, and the limits it counts against."""

    tenant: str
    user: str
    body: CreateSession
    account: Account
    limits: Limits
    expose_state_variables: bool = False
    on_drift: Literal["report", "cancel"] = "report"

    @property
    def seconds(self) -> int:
        """How long the session may live, in seconds from its creation."""
        return self.body["expires_after"]["seconds"]


class Status(StrEnum):
    """A session's state, in upstream's words."""

    ACTIVE = "active"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as upstream resolved it. `expires_at` is in Unix seconds; no secret is in it."""

    id: str
    user: str
    expires_at: int
    status: Status
    workflow: Mapping[str, Any]
    rate_limits: Mapping[str, Any]
    chatkit_configuration: Mapping[str, Any]

    def public(self, *, state_variables: bool = False) -> dict[str, Any]:
        """Return ChatKit's session object without its secret.

        State variables are server-side values: null unless the tenant exposes them.
        """
        workflow = dict(self.workflow)
        if not state_variables:
            workflow["state_variables"] = None
        return {
            "id": self.id,
            "object": "chatkit.session",
            "expires_at": self.expires_at,
            "user": self.user,
            "status": str(self.status),
            "workflow": workflow,
            "rate_limits": dict(self.rate_limits),
            "max_requests_per_1_minute": self.rate_limits.get("max_requests_per_1_minute"),
            "chatkit_configuration": dict(self.chatkit_configuration),
        }


@dataclass(frozen=True, slots=True)
class Minted:
    """A new session with its client secret. The secret goes into the answer and nowhere else."""

    session: Session
    client_secret: str = field(repr=False)


class Live(NamedTuple):
    """A session as our records know it. Times are Unix seconds."""

    id: str
    user: str
    workflow: str
    login: str
    """What stands for the login that minted it (`login_mark`); empty where there is none."""
    created_at: float
    expires_at: int
    issued_at: float
    """The `iat` of the token that it was minted with."""
    place: str
    """Where it was issued: `Account.place`."""

    def public(self) -> dict[str, Any]:
        """Return what its owner may read of it."""
        return {
            "id": self.id,
            "object": "chatkit.session",
            "status": str(Status.ACTIVE),
            "user": self.user,
            "workflow": {"id": self.workflow},
            "created_at": int(self.created_at),
            "expires_at": self.expires_at,
        }
