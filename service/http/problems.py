"""One shape for every no: RFC 9457 problem details, with what each kind of client also expects to find in it."""

from http import HTTPStatus
from math import ceil
from typing import Any, Final

from pydantic import TypeAdapter
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
from service.http.shapes import LOGOUT_PROBLEM, PROBLEM, SDK_PROBLEM, STARTER_PROBLEM
from service.observe.logs import note, where

REFUSAL_KEY: Final = "chatkit_mint.refusal"
"""Where the request's scope keeps the code of its refusal, for the metrics."""

SDK_ROUTES: Final = "/v1/chatkit/"
STARTER_ROUTES: Final = "/api/"
BACK_CHANNEL: Final = "/v1/logout/backchannel"

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


def problem_shape(path: str) -> TypeAdapter[Any]:
    """Return the shape of a refusal on *path*."""
    if path.startswith(SDK_ROUTES):
        return SDK_PROBLEM
    if path.startswith(STARTER_ROUTES):
        return STARTER_PROBLEM
    return LOGOUT_PROBLEM if path == BACK_CHANNEL else PROBLEM


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
    if path.startswith(SDK_ROUTES):
        ours = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _OPENAI_TYPES.get(refusal.status, "server_error" if ours else "invalid_request_error")
        body["error"] = {"message": refusal.detail, "type": kind, "param": refusal.field, "code": code}
    elif path.startswith(STARTER_ROUTES):
        body["error"] = refusal.detail
    elif path == BACK_CHANNEL:
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
