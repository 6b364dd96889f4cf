"""The refusals: everything that this service says no with.

    Refusal
    ├─ InvalidRequest          400 invalid_request
    ├─ Unauthorized            401
    │  ├─ MissingCredentials       missing_credentials
    │  ├─ InvalidToken             invalid_token
    │  │  └─ TokenExpired          token_expired
    │  ├─ LoginRevoked             login_revoked
    │  └─ SessionNotActive         session_not_active
    ├─ PolicyDenied            403 policy_denied
    ├─ UserMismatch            403 user_mismatch
    ├─ TenantBlocked           403 tenant_blocked
    ├─ NotFound                404 not_found
    ├─ MethodNotAllowed        405 method_not_allowed
    ├─ Conflict                409 conflict
    ├─ BodyTooLarge            413 body_too_large
    ├─ UnsupportedMediaType    415 unsupported_media_type
    ├─ RateLimited             429 rate_limited
    ├─ SessionRateLimited      429 session_rate_limited
    ├─ TooManyLiveSessions     429 too_many_live_sessions
    ├─ InternalError           500 internal_error
    ├─ UpstreamRefused         502 upstream_refused
    ├─ UpstreamInvalid         502 upstream_invalid
    ├─ UpstreamUnavailable     503 upstream_unavailable
    ├─ Overloaded              503 overloaded
    ├─ StoreUnavailable        503 store_unavailable
    ├─ IssuerUnavailable       503 issuer_unavailable
    └─ UpstreamTimeout         504 upstream_timeout

A refusal's public text is what the caller may read; its `reason` goes to the log alone. Docstring and `advice` are its
section of `/docs`: what it means, and what to do about it.
"""

from collections.abc import Mapping
from typing import ClassVar


class Refusal(Exception):  # noqa: N818  (a refusal is an answer, not an accident)
    """An answer other than yes: status, code and public text, with the true reason kept for the log."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    public: ClassVar[str] = "Something went wrong here; the log knows what"
    advice: ClassVar[str]
    default_retry_after: ClassVar[float | None] = None
    """Seconds, where nobody knows better; None where the answer doesn't say when to come back."""

    def __init__(
        self,
        reason: str | None = None,
        *,
        detail: str | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason or detail or self.public)
        self.reason = reason
        self.detail = detail or self.public
        self.field = field
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        self.headers: Mapping[str, str] = headers or {}


class InvalidRequest(Refusal):
    """The request itself is wrong; the detail names the field."""

    status, code, public = 400, "invalid_request", "The request is not valid"
    advice = "Mend what `field` or `detail` names. The same request again gets the same answer."


class Unauthorized(Refusal):
    """Nobody that we know is asking. Carries `WWW-Authenticate` (RFC 6750 §3)."""

    status = 401
    challenge: ClassVar[str] = 'Bearer error="invalid_token"'


class MissingCredentials(Unauthorized):
    """No credential was sent; RFC 6750 §3.1 then wants a challenge without an error code."""

    code, public, challenge = "missing_credentials", "Send an access token: Authorization: Bearer …", "Bearer"
    advice = "Send `Authorization: Bearer …`. A page that sends a cookie must be of an origin that the tenant lists."


class InvalidToken(Unauthorized):
    """A token was sent and is no good. Why stays in the log: the answer is no oracle for attackers."""

    code, public = "invalid_token", "The access token is not valid here"
    advice = (
        "Get a new token once and try again; if that one is refused too, the operator finds the reason "
        "in the log by `request_id`."
    )


class TokenExpired(InvalidToken):
    """A genuine token, good but for its age. Only who holds one learns this, and could read it in the token itself."""

    code, public = "token_expired", "The access token has expired"
    advice = "Renew the access token and send the request again."


class LoginRevoked(Unauthorized):
    """The token is genuine, but its login was logged out."""

    code, public = "login_revoked", "This login was logged out; sign in again"
    advice = "Have the user sign in again. Renewing the token within the same login doesn't help."


class SessionNotActive(Unauthorized):
    """The client secret is not that of a live session: unknown, expired or cancelled, and nobody is told which."""

    code, public = "session_not_active", "The client secret is not that of a live session"
    advice = "Get a new client secret. Where that is refused, the user has to sign in again."


class PolicyDenied(Refusal):
    """The tenant's policy says no. Every denial reads the same unless the tenant gave a public text."""

    status, code, public = 403, "policy_denied", "The policy does not allow this"
    advice = (
        "Show `detail` to the user where the tenant wrote one. With `field`, leave that wish out or "
        "keep it within the tenant's `client_may`."
    )


class UserMismatch(Refusal):
    """The body names a user who is not the caller."""

    status, code, public = 403, "user_mismatch", "The user in the body is not the caller"
    advice = "Leave `user` out of the body: the token says who it is."


class TenantBlocked(Refusal):
    """An operator has blocked the whole tenant."""

    status, code, public = 403, "tenant_blocked", "No sessions are handed out to this customer at the moment"
    advice = "Nothing that a caller can do. The operator lets the tenant in again with `chatkit-mint unblock`."


class NotFound(Refusal):
    """No such thing, or none that is the caller's: the two read the same."""

    status, code, public = 404, "not_found", "There is no such thing here"
    advice = "Check the path and the id. A session that has ended is no longer found."


class MethodNotAllowed(Refusal):
    """The path exists, the method doesn't."""

    status, code, public = 405, "method_not_allowed", "This path does not answer this method"
    advice = "Use a method that the `Allow` header names."


class Conflict(Refusal):
    """What is under way stands against it; a little later it may go."""

    status, code, public = 409, "conflict", "Something that is under way stands against it"
    advice = "Wait as long as `Retry-After` says and send the request again."
    default_retry_after = 1.0


class BodyTooLarge(Refusal):
    """The body is over the limit."""

    status, code, public = 413, "body_too_large", "The body is larger than 64 KiB"
    advice = "Send less."


class UnsupportedMediaType(Refusal):
    """The body is of a kind that this path does not read."""

    status, code, public = 415, "unsupported_media_type", "Send the body as application/json"
    advice = "Set `Content-Type: application/json`, or send no body."


class RateLimited(Refusal):
    """The principal has used up a mint limit of its tenant's policy."""

    status, code, public = 429, "rate_limited", "Too many sessions were requested"
    advice = "Wait as long as `Retry-After` says. `RateLimit` and `RateLimit-Policy` tell which limit it was."
    default_retry_after = 1.0


class SessionRateLimited(Refusal):
    """The session's own `max_requests_per_1_minute` are used up."""

    status, code, public = 429, "session_rate_limited", "Too many requests of this session"
    advice = "Wait as long as `Retry-After` says and send the request again."
    default_retry_after = 1.0


class TooManyLiveSessions(Refusal):
    """The principal holds as many live sessions as its tenant's policy allows."""

    status, code, public = 429, "too_many_live_sessions", "Too many sessions are live"
    advice = "Cancel a session, or wait as long as `Retry-After` says: then one has expired."
    default_retry_after = 1.0


class InternalError(Refusal):
    """A defect of ours; the log knows which."""

    advice = "Report it to the operator with its `request_id`."


class UpstreamRefused(Refusal):
    """Upstream said no to a request that we made: wrong project, unknown workflow, bad key."""

    status, code, public = 502, "upstream_refused", "The session service is not configured correctly"
    advice = "Trying again doesn't help. The operator runs `chatkit-mint doctor`, which says what is wrong."

    def __init__(self, reason: str, *, upstream_status: int = 0, upstream_code: str = "") -> None:
        super().__init__(reason)
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code


class UpstreamInvalid(Refusal):
    """Upstream answered something that we can't hand out; *session_id* is what it created, where it said so."""

    status, code, public = 502, "upstream_invalid", "The session service answered something unusable"
    advice = "Try once more, later; if it stays, the operator finds the reason in the log by `request_id`."

    def __init__(self, reason: str, *, session_id: str | None = None) -> None:
        super().__init__(reason)
        self.session_id = session_id


class UpstreamUnavailable(Refusal):
    """Upstream can't be reached, is failing, or has no capacity for the whole account."""

    status, code, public = 503, "upstream_unavailable", "The session service is not available right now"
    advice = "Wait as long as `Retry-After` says and send the request again. A cancel is tried again here by itself."
    default_retry_after = 5.0

    def __init__(self, reason: str | None = None, *, retry_after: float | None = None, asked: bool = True) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.asked = asked
        """False where no request was sent: what the caller was counted for can be given back."""


class Overloaded(Refusal):
    """As many of the tenant's mints are under way in this process as its file allows at once."""

    status, code, public = 503, "overloaded", "Too many sessions are being created right now"
    advice = "Wait as long as `Retry-After` says and send the request again."
    default_retry_after = 1.0


class StoreUnavailable(Refusal):
    """Redis doesn't answer, so nothing may be handed out."""

    status, code, public = 503, "store_unavailable", "Sessions can't be recorded right now"
    advice = "Wait as long as `Retry-After` says and send the request again."
    default_retry_after = 2.0


class IssuerUnavailable(Refusal):
    """The token's issuer publishes no keys that we can get: the token may be good, so this is no 401."""

    status, code, public = (
        503,
        "issuer_unavailable",
        "The sign-in service can't be reached to check this token",
    )
    advice = "Keep the token, wait as long as `Retry-After` says and send the request again."
    default_retry_after = 5.0


class UpstreamTimeout(Refusal):
    """Upstream took too long."""

    status, code, public = 504, "upstream_timeout", "The session service took too long"
    advice = "Send the request again in a moment. What was created all the same is cancelled, or expires unused."
