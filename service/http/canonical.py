"""One request: its id, its place in the metrics, and the one line that the log gets of it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.cors import Cors
from service.http.problems import REFUSAL_KEY, answer_error
from service.observe.logs import gather_facts, note, where
from service.observe.metrics import Metrics
from service.observe.trace_context import SAMPLED, TraceContext, begin_trace

if TYPE_CHECKING:
    from service.observe.spans import Spans

log = structlog.get_logger()

SERVER_ERROR: Final = 500
CLIENT_CLOSED: Final = 499
"""Written to the log and the metrics alone: the caller left before the answer."""


class CanonicalLine:
    """The one layer around the routes: whatever happens inside, the caller gets an answer and the log gets a line.

    *routes* names endpoints for the metrics: never the path, which a caller chooses. *level* is the line's.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Mapping[Callable[..., Any], str],
        level: int = logging.INFO,
        spans: "Spans | None" = None,
        cors: Cors | None = None,
    ) -> None:
        self.spans = spans
        self.cors = cors
        self.app = app
        self.metrics = metrics
        self.routes = routes
        self.level = level
        self.log = log.bind()  # a lazy logger is bound anew for each line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request and tell of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"req_{getrandbits(96):024x}"  # names a request, guards nothing
        scope.setdefault("state", {})["request_id"] = request_id
        started, ended, status = time.perf_counter(), 0.0, 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if self.cors is not None:
                    message["headers"] += self.cors.headers(scope, facts.get("tenant"))
            await send(message)

        self.metrics.in_flight.inc()
        facts = gather_facts()
        trace, span = self._begin(scope)
        facts["request_id"], facts["trace_id"] = request_id, trace.trace_id
        try:
            await self.app(scope, receive, send_with_id)
            ended = time.perf_counter()
            # The answer is out. Whoever else is to get one in this turn of the loop needn't wait for what follows.
            await asyncio.sleep(0)
        except ClientDisconnect:
            status = CLIENT_CLOSED
        except asyncio.CancelledError:
            note(cancelled_by=None if ended else "shutdown")
            raise
        except Exception as error:  # noqa: BLE001  (the edge: a defect is answered and told, not passed on)
            if status:
                note(error=where(error))
            else:
                await answer_error(error, Request(scope))(scope, receive, send_with_id)
        finally:
            self.metrics.in_flight.dec()
            took = (ended or time.perf_counter()) - started
            route = self.routes.get(scope.get("endpoint"), "none")  # type: ignore[arg-type]
            self._count(scope, route, status, took, trace)
            if span is not None:
                self._end(span, scope, route, status, facts)
            self._tell(scope, route, status, took, facts)

    def _begin(self, scope: Scope) -> tuple[TraceContext, Any]:
        trace = begin_trace(scope["headers"])
        if self.spans is None:
            return trace, None
        span, trace = self.spans.serve(trace)
        return trace, span

    def _end(self, span: Any, scope: Scope, route: str, status: int, facts: Mapping[str, Any]) -> None:
        assert self.spans is not None  # noqa: S101  (which made the span)
        refusal, tenant = scope.get(REFUSAL_KEY), facts.get("tenant")
        self.spans.served(span, _method(scope), route, status, tenant=tenant, refusal=refusal)

    def _tell(self, scope: Scope, route: str, status: int, took: float, facts: Mapping[str, Any]) -> None:
        self.log.log(
            logging.WARNING if status >= SERVER_ERROR else self.level,
            "request",
            route=route,
            method=_method(scope),
            status=status,
            outcome=scope.get(REFUSAL_KEY, "ok"),
            duration_ms=round(took * 1000, 2),
            **{name: fact for name, fact in facts.items() if fact is not None},
        )

    def _count(self, scope: Scope, route: str, status: int, took: float, trace: TraceContext) -> None:
        self.metrics.counter(self.metrics.requests, route, _method(scope), str(status)).inc()
        exemplar = {"trace_id": trace.trace_id} if trace.flags & SAMPLED else None
        self.metrics.histogram(self.metrics.request_seconds, route).observe(took, exemplar)
        if code := scope.get(REFUSAL_KEY):
            self.metrics.refusals.labels(code).inc()


def plain(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """Return the endpoint as an app. Starlette's own wrapping looks for handlers of errors once more."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return answer


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
