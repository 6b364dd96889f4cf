"""One shape for every no: RFC 9457 problem details, with what each kind of client also expects to find in it."""

from http import HTTPStatus
from math import ceil
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Refusal,
    Unauthorized,
)
from service.http.answers import to_json
from service.observe.logs import note, where

REFUSAL_KEY: Final = "chatkit_mint.refusal"
"""Where the request's scope keeps the code of its refusal, for the metrics."""

_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_BY_STATUS: Final[dict[int, type[Refusal]]] = {
    400: InvalidRequest,
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
}


def answer_error(error: Exception, request: Request) -> Response:
    """Render a `Refusal`, the framework's own no (404, 405, 413) in our shape and with its headers, or a defect."""
    if isinstance(error, Refusal):
        return problem(error, request)
    if isinstance(error, HTTPException):
        kind = _BY_STATUS.get(error.status_code, InternalError)
        return problem(kind(headers=error.headers), request)
    note(error=where(error))
    return problem(InternalError(), request)


def problem(refusal: Refusal, request: Request) -> Response:
    """Return the answer of a refusal; note its reason for the log."""
    code = refusal.code
    request.scope[REFUSAL_KEY] = code
    note(reason=refusal.reason, field=refusal.field)
    request_id = request.scope.get("state", {}).get("request_id")
    body: dict[str, Any] = {
        "type": f"/docs#{code}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": code,
        "request_id": request_id,
    }
    if refusal.field:
        body["field"] = refusal.field
    path = request.scope["path"]
    if path.startswith("/v1/chatkit/"):
        ours = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _OPENAI_TYPES.get(refusal.status, "server_error" if ours else "invalid_request_error")
        body["error"] = {"message": refusal.detail, "type": kind, "param": refusal.field, "code": code}
    elif path.startswith("/api/"):
        body["error"] = refusal.detail
    elif path == "/v1/logout/backchannel":
        # OIDC Back-Channel Logout 1.0 §2.8, after RFC 6749 §5.2.
        busy = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        body["error"] = "temporarily_unavailable" if busy else "invalid_request"
        body["error_description"] = refusal.detail
    headers = {"cache-control": "no-store", **refusal.headers}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, ceil(refusal.retry_after)))
    if isinstance(refusal, Unauthorized):
        headers["www-authenticate"] = refusal.challenge
    return Response(to_json(body), refusal.status, headers, "application/problem+json")
