"""Upstream's answers → our values, tolerant of every contradiction in its documents.

What we can't do without is refused (`client_secret`, `id`); what is missing or of the wrong kind otherwise is
filled from what we asked for; what we don't know is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeGuard

from service.contract import MAX_SECONDS, CreateSession
from service.errors import UpstreamInvalid
from service.session import Minted, Session, Status

SKEW: Final = 60
"""Seconds by which upstream's clock may differ from ours. An end beyond it is not believed: it would be kept, and
tried to be cancelled, for ever."""
_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,255}")
"""`cksess_…`: opaque, but it must be a path segment of its own and a Redis field unlike our marks."""
_ABSENT: Final = object()
_NOTHING: Final[Mapping[str, Any]] = {}
_CONFIGURED: Final = ("automatic_thread_titling", "file_upload", "history")
_STATUSES: Final = {str(status): status for status in Status}
LARGEST: Final = 2.0**53
"""Integers from here on are not exact in everybody's JSON."""
MAX_SECRET: Final = 4096
"""Characters; the secret is opaque, but not endless."""


def read_minted(answer: Any, body: CreateSession, *, now: float) -> Minted:
    """Return the new session; *now* is when its creation was asked for (Unix seconds).

    Raises `UpstreamInvalid` without a secret (nothing to hand out) or an id (nothing to revoke by).
    """
    if not isinstance(answer, dict):
        raise UpstreamInvalid("create answered no JSON object")
    secret, session_id = answer.get("client_secret"), answer.get("id")
    if not isinstance(session_id, str) or not _ID.fullmatch(session_id):
        raise UpstreamInvalid("create answered no usable id; the session can't be revoked")
    if not isinstance(secret, str) or not 0 < len(secret) <= MAX_SECRET:
        raise UpstreamInvalid("create answered no client_secret", session_id=session_id)
    ends = int(now) + _asked(body)
    told = answer.get("expires_at")
    if _number(told) and now < told <= int(now) + MAX_SECONDS + SKEW:
        ends = int(told)
    return Minted(_session(answer, session_id, body, ends), secret)


def read_cancelled(answer: Any, session_id: str) -> Session:
    """Return the cancelled session. Any 2xx means cancelled, whatever the body says."""
    fields = answer if isinstance(answer, dict) else {}
    user = fields.get("user")
    asked: CreateSession = {"user": user if isinstance(user, str) else "", "workflow": {"id": ""}}
    return replace(_session(fields, session_id, asked, 0), status=Status.CANCELLED)


def _session(answer: Mapping[str, Any], session_id: str, body: CreateSession, expires_at: int) -> Session:
    user, status = answer.get("user"), answer.get("status")
    workflow, limits, configuration = _maps(answer, "workflow", "rate_limits", "chatkit_configuration")
    return Session(
        id=session_id,
        user=user if isinstance(user, str) and user else body["user"],
        expires_at=expires_at,
        status=_STATUSES.get(status, Status.ACTIVE) if isinstance(status, str) else Status.ACTIVE,
        workflow=_workflow(workflow, body),
        rate_limits=_rate_limits(limits, answer, body),
        chatkit_configuration=_configuration(configuration, body),
    )


def _asked(body: CreateSession) -> int:
    """Return how many seconds the session was asked to live."""
    return body["expires_after"]["seconds"] if "expires_after" in body else MAX_SECONDS


def _workflow(told: Mapping[str, Any], body: CreateSession) -> dict[str, Any]:
    asked: Mapping[str, Any] = body["workflow"]
    state = told.get("state_variables", ())
    (tracing,), (tracing_asked,) = _maps(told, "tracing"), _maps(asked, "tracing")
    if not (state is None or isinstance(state, dict)):
        state = asked.get("state_variables")
    return {
        "id": _text(told.get("id")) or asked["id"],
        "version": _text(told.get("version")) or asked.get("version"),
        "state_variables": state if isinstance(state, dict) else None,
        "tracing": {"enabled": _enabled(tracing, tracing_asked, otherwise=True)},
    }


def _rate_limits(told: Mapping[str, Any], answer: Mapping[str, Any], body: CreateSession) -> dict[str, Any]:
    name = "max_requests_per_1_minute"
    asked = body["rate_limits"].get(name, 10) if "rate_limits" in body else 10
    for value in (told.get(name), answer.get(name)):
        if _number(value):
            return {name: int(value)}
    return {name: asked}


def _configuration(told: Mapping[str, Any], body: CreateSession) -> dict[str, Any]:
    asked: Mapping[str, Any] = body.get("chatkit_configuration", {})
    titling, upload, history = _maps(told, *_CONFIGURED)
    titling_asked, upload_asked, history_asked = _maps(asked, *_CONFIGURED)
    return {
        "automatic_thread_titling": {"enabled": _enabled(titling, titling_asked, otherwise=True)},
        "file_upload": {
            "enabled": _enabled(upload, upload_asked, otherwise=False),
            "max_file_size": _count(upload, upload_asked, "max_file_size", 512),
            "max_files": _count(upload, upload_asked, "max_files", 10),
        },
        "history": {
            "enabled": _enabled(history, history_asked, otherwise=True),
            "recent_threads": _count(history, history_asked, "recent_threads", None),
        },
    }


def _enabled(told: Mapping[str, Any], asked: Mapping[str, Any], *, otherwise: bool) -> bool:
    for side in (told, asked):
        value = side.get("enabled")
        if value is True or value is False:
            return value
    return otherwise


def _count(told: Mapping[str, Any], asked: Mapping[str, Any], name: str, otherwise: int | None) -> int | None:
    for value in (told.get(name, _ABSENT), asked.get(name, otherwise)):
        if value is None:
            return None
        if _number(value):
            return int(value)
    return None


def _maps(fields: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """Return the objects of these names; an empty one for what is missing or is none."""
    return [value if isinstance(value := fields.get(name), dict) else _NOTHING for name in names]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and abs(value) < LARGEST
