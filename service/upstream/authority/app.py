"""The authority over HTTP: upstream's two routes, headers and error shape as an ASGI app."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.upstream.authority.faults import Faults
from service.upstream.authority.keys import Keyring
from service.upstream.authority.sessions import Authority
from service.upstream.authority.validate import valid_create
from service.upstream.authority.wire import WireError, server_error

BETA: Final = "chatkit_beta=v1"

MAX_BODY: Final = 64 * 1024 * 1024
"""Bytes of a body. Upstream gives no limit; this lets the longest state variable through with room for escapes."""

STARTED: Final = "chatkit.started"
"""Where the ASGI scope keeps the moment at which a request came in."""


def create_authority_app(
    authority: Authority,
    *,
    keys: Mapping[str, str] | None = None,
    workflows: frozenset[str] | None = None,
    faults: Faults | None = None,
) -> Starlette:
    """Return the app.

    *keys* maps API keys to their projects; with None any `sk-…` is good. *workflows* are the ids that exist;
    with None all do.
    """
    edge = _Edge(authority, Keyring(keys), workflows, faults or Faults())
    app = Starlette(
        routes=[
            Route("/v1/chatkit/sessions", edge.create, methods=["POST"]),
            Route("/v1/chatkit/sessions/{session_id}/cancel", edge.cancel, methods=["POST"]),
        ],
        middleware=[Middleware(Traced)],
        exception_handlers={WireError: _refuse, HTTPException: _refuse_route, Exception: _fail},
    )
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True, slots=True)
class _Edge:
    """The two endpoints and what they need."""

    authority: Authority
    keyring: Keyring
    workflows: frozenset[str] | None
    faults: Faults

    async def create(self, request: Request) -> Response:
        project = await self._admitted(request)
        if self.faults.hits(self.faults.rate_limited):
            raise _rate_limited()
        if self.faults.hits(self.faults.failing):
            raise server_error()
        body = await _json(request)
        if self.workflows is not None:
            workflow = valid_create(body)["workflow"]["id"]
            if workflow not in self.workflows:
                raise WireError(404, f"Workflow with id '{workflow}' not found.")
        session = await self.authority.create(project, body)
        if self.faults.hits(self.faults.drop_after_create):
            return Dropped()
        return _answer(200, session)

    async def cancel(self, request: Request) -> Response:
        project = await self._admitted(request)
        if self.faults.hits(self.faults.cancel_failing):
            raise server_error()
        return _answer(200, await self.authority.cancel(project, request.path_params["session_id"]))

    async def _admitted(self, request: Request) -> str:
        """Return the caller's project, once the headers are in order and the latency has passed."""
        project = self.keyring.project(request.headers)
        _check_beta(request.headers)
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        return project


class Traced:
    """ASGI middleware: every answer carries `x-request-id` and `openai-processing-ms`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and add the headers when its answer starts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[STARTED] = time.perf_counter()

        async def traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_trace(scope))
            await send(message)

        await self.app(scope, receive, traced)


class Dropped(Response):
    """No answer at all: the connection closes without a byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Start an answer that can't be written, then raise for servers that wrote it all the same."""
        # uvicorn answers 500 to an exception before the response has started, and just closes after it. It
        # counts a response as started before it looks at the headers, so one that it refuses is never sent.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"\r\n", b"")]})
        raise ConnectionAbortedError("a fault: this answer is lost")


def _check_beta(headers: Headers) -> None:
    sent = [part.strip() for line in headers.getlist("openai-beta") for part in line.split(",")]
    if BETA not in sent:
        raise WireError(
            400,
            "You must provide the 'OpenAI-Beta' header to access the ChatKit API. "
            f"Please try again by setting the header 'OpenAI-Beta: {BETA}'.",
            code="invalid_beta",
        )


async def _json(request: Request) -> object:
    """Return the body as JSON; raise a 400 or 413 `WireError`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise WireError(413, f"The request body is larger than {MAX_BODY} bytes.", code="body_too_large")
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise WireError(400, "We could not parse the JSON body of your request.", code="invalid_json") from None
    return read


def _rate_limited() -> WireError:
    return WireError(
        429,
        "Rate limit reached for requests.",
        type="requests",
        code="rate_limit_exceeded",
        headers={"retry-after": "1", "x-should-retry": "true"},
    )


def _answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _trace(scope: Scope) -> dict[str, str]:
    took = time.perf_counter() - scope[STARTED]
    return {"x-request-id": f"req_{secrets.token_hex(16)}", "openai-processing-ms": str(round(took * 1000))}


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, WireError)  # noqa: S101  (Starlette types every handler alike)
    return _answer(error.status, error.body, error.headers)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (as above)
    call = f"{request.method} {request.url.path}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refusal = WireError(405, f"Not allowed to {call}.", code="method_not_supported")
    elif error.status_code == HTTPStatus.NOT_FOUND:
        refusal = WireError(404, f"Invalid URL ({call})", code="unknown_url")
    else:
        refusal = WireError(error.status_code, error.detail)
    return _answer(refusal.status, refusal.body, error.headers)


async def _fail(request: Request, _: Exception) -> Response:
    # Starlette answers defects outside the middleware, so these headers are put on by hand.
    refusal = server_error()
    return _answer(refusal.status, refusal.body, _trace(request.scope))
