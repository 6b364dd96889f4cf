"""OpenTelemetry spans: of requests, of calls upstream, and of what a mint does between.

The one module that imports OpenTelemetry, which is an optional extra. Where nobody wants spans there is no `Spans`, and
who might make one looks at a None. Nothing secret and nobody's id is in any span.
"""

import threading
from collections.abc import Awaitable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final, TypeVar

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from service import __version__
from service.errors import Refusal
from service.observe.trace_context import TraceContext, current_state, take_over

FLUSH: Final = 3.0
"""Seconds at the end for spans that still wait to be sent."""
NAMES: Final = {"create": "POST /chatkit/sessions", "cancel": "POST /chatkit/sessions/{session_id}/cancel"}

T = TypeVar("T")

_current: ContextVar[Span | None] = ContextVar("span", default=None)


def make_spans() -> "Spans":
    """Return spans that go where the standard `OTEL_…` variables say, by OTLP over HTTP."""
    ours = Resource({"service.name": "chatkit-mint", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)


class Spans:
    """Begins and ends spans of a *provider*."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("chatkit-mint", __version__)

    def serve(self, trace: TraceContext) -> tuple[Span, TraceContext]:
        """Begin the span of a request for this task; return it and the trace, which may have begun with it."""
        parent = NonRecordingSpan(_remote(trace)) if trace.caller else None
        context = set_span_in_context(parent) if parent else None
        span = self._tracer.start_span("request", context, SpanKind.SERVER)
        _current.set(span)
        made = span.get_span_context()
        trace = trace._replace(trace_id=f"{made.trace_id:032x}", flags=int(made.trace_flags))
        take_over(trace)
        return span, trace

    @staticmethod
    def served(span: Span, method: str, route: str, status: int, *, tenant: str | None, refusal: str | None) -> None:
        """End a request's span."""
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route})
            if status:
                span.set_attribute("http.response.status_code", status)
            if tenant:
                span.set_attribute("chatkit.tenant", tenant)
            if refusal:
                span.set_attribute("error.type", refusal)
            if not status or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
        span.end()

    def call(self, operation: str) -> Span:
        """Begin the span of one call upstream."""
        attributes = {"chatkit.operation": operation, "http.request.method": "POST"}
        return self._begin(NAMES[operation], SpanKind.CLIENT, attributes)

    @staticmethod
    def headers(span: Span) -> dict[str, str]:
        """Return what a call carries whose span this is."""
        made = span.get_span_context()
        told = {"traceparent": f"00-{made.trace_id:032x}-{made.span_id:016x}-{int(made.trace_flags):02x}"}
        if state := current_state():
            told["tracestate"] = state
        return told

    @staticmethod
    def called(span: Span, outcome: str) -> None:
        """End the span of a call; *outcome* is the answer's status, or why there is none."""
        answered = outcome.isdecimal()
        if answered:
            span.set_attribute("http.response.status_code", int(outcome))
        if not answered or int(outcome) >= HTTPStatus.BAD_REQUEST:
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR)
        span.end()

    async def during(self, name: str, work: Awaitable[T]) -> T:
        """Wait for *work* in a span of its own."""
        span = self._begin(name, SpanKind.INTERNAL)
        try:
            return await work
        except Refusal as refusal:
            span.set_attribute("error.type", refusal.code)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what still waits, for at most `FLUSH` seconds: a collector that hangs must not hold up the end."""
        closing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(FLUSH)

    def _begin(self, name: str, kind: SpanKind, attributes: dict[str, str] | None = None) -> Span:
        parent = _current.get()
        context = set_span_in_context(parent) if parent else None
        return self._tracer.start_span(name, context, kind, attributes)


def _remote(trace: TraceContext) -> SpanContext:
    state = TraceState.from_header([trace.state]) if trace.state else None
    caller = int(trace.caller or "0", 16)
    return SpanContext(int(trace.trace_id, 16), caller, True, TraceFlags(trace.flags), state)
