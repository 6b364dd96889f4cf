"""What a client secret stands for, once it is verified; and the refusals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifiedSession:
    """A live session. `expires_at` is in Unix seconds; its secret is not in it."""

    id: str
    tenant: str
    user: str
    expires_at: int
    workflow: Mapping[str, Any]
    """`id`, `version` and `state_variables`: values of the server's side, not for browsers."""
    max_requests_per_1_minute: int
    chatkit_configuration: Mapping[str, Any]

    @classmethod
    def read(cls, tenant: str, session: Mapping[str, Any]) -> "VerifiedSession":
        """Return it from a `chatkit.session` object."""
        return cls(
            id=session["id"],
            tenant=tenant,
            user=session["user"],
            expires_at=session["expires_at"],
            workflow=session["workflow"],
            max_requests_per_1_minute=session["max_requests_per_1_minute"],
            chatkit_configuration=session["chatkit_configuration"],
        )

    def public(self) -> dict[str, Any]:
        """Return the `chatkit.session` object."""
        return {
            "id": self.id,
            "object": "chatkit.session",
            "status": "active",
            "user": self.user,
            "expires_at": self.expires_at,
            "workflow": dict(self.workflow),
            "rate_limits": {"max_requests_per_1_minute": self.max_requests_per_1_minute},
            "max_requests_per_1_minute": self.max_requests_per_1_minute,
            "chatkit_configuration": dict(self.chatkit_configuration),
        }

    @property
    def may_upload(self) -> bool:
        """Whether the session may upload files at all."""
        return bool(self.chatkit_configuration["file_upload"]["enabled"])

    @property
    def max_file_bytes(self) -> int:
        """The size of one upload, at most, in bytes. The contract's unit is megabytes, of 2²⁰ bytes here."""
        return int(self.chatkit_configuration["file_upload"]["max_file_size"]) * MEGABYTE

    @property
    def recent_threads(self) -> int | None:
        """How many of the user's latest threads may be listed: 0 without history, None for all."""
        history = self.chatkit_configuration["history"]
        if not history["enabled"]:
            return 0
        most: int | None = history["recent_threads"]
        return most


class Refused(Exception):  # noqa: N818  (a refusal is an answer, not an accident)
    """A call that is not let through. `retry_after` is in whole seconds, None where waiting doesn't help."""

    status = 401
    code = "session_not_active"
    message = "The client secret is not that of a live session. Get a new one."

    def __init__(self, *, retry_after: int | None = None) -> None:
        super().__init__(self.message)
        self.retry_after = retry_after

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body (RFC 9457) that tell a caller of it."""
        told = {"type": "about:blank", "status": self.status, "code": self.code, "detail": self.message}
        headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = 'Bearer realm="chatkit"'
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return self.status, headers, json.dumps(told).encode()


class NotActive(Refused):
    """Unknown, malformed, expired or cancelled: nobody is told which."""


class TooManyRequests(Refused):
    """The session's `max_requests_per_1_minute` are used up."""

    status = 429
    code = "session_rate_limited"
    message = "Too many requests for this session. Wait, and try again."


class UploadRefused(Refused):
    """The session grants no upload, or no more, or none of that size."""

    status = 403
    code = "upload_refused"
    message = "This session does not allow that upload."


class Unavailable(Refused):
    """Nobody can tell now whether the session is live, so it is not let through."""

    status = 503
    code = "verifier_unavailable"
    message = "Sessions can't be verified right now. Try again soon."

    def __init__(self, *, retry_after: int = 1) -> None:
        super().__init__(retry_after=retry_after)
