"""OpenTelemetry spans: which there are, whose children they are, and what is not in them."""

import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio import Redis

from service.app import create_app
from service.observe import spans as spans_module
from service.observe.spans import Spans
from service.settings import Settings
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.sessions import Authority
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNER = Signer("https://login.example/", "app")
IDENTITY = {"issuer": SIGNER.issuer, "audience": "app", "algorithms": ["ES256"], "jwks": SIGNER.jwks}
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SESSIONS = "/v1/chatkit/sessions"
API_KEY = "sk-acme-5d41402abc4b2a76b971"


@dataclass
class Traced:
    """A service with spans, what upstream was sent, and what was exported."""

    http: httpx2.AsyncClient
    exporter: InMemorySpanExporter
    carried: list[dict[str, str]] = field(default_factory=list)
    upstream_status: int | None = None

    async def mint(self, subject: str = "alice", body: Any = None, **headers: str) -> httpx2.Response:
        token = {"authorization": f"Bearer {SIGNER.token(subject)}"}
        return await self.http.post(SESSIONS, headers={**token, **headers}, json=body)

    def spans(self) -> dict[str, ReadableSpan]:
        found = self.exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


class Upstream(httpx2.AsyncBaseTransport):
    def __init__(self, authority: Authority, traced: Traced) -> None:
        self._inner = httpx2.ASGITransport(create_authority_app(authority))
        self._traced = traced

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        names = ("traceparent", "tracestate")
        self._traced.carried.append({name: request.headers[name] for name in names if name in request.headers})
        if self._traced.upstream_status:
            return httpx2.Response(self._traced.upstream_status, stream=httpx2.ByteStream(b"{}"))
        return await self._inner.handle_async_request(request)


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


@pytest.fixture
async def traced(redis: Redis, tmp_path: Path, provider: TracerProvider) -> AsyncIterator[Traced]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    upstream = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": {"env": "KEY"}}
    config = write_config(tmp_path / "config", tenant_file("acme", IDENTITY, upstream=upstream))
    made = Traced(httpx2.AsyncClient(), exporter)
    transport = Upstream(Authority(redis), made)
    settings = Settings(config_dir=config)
    app = create_app(settings, {"KEY": API_KEY}, redis=redis, transport=transport, spans=Spans(provider))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service") as client:
        made.http = client
        yield made


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent else None


def id_of(span: ReadableSpan) -> str:
    assert span.context
    return f"{span.context.span_id:016x}"


async def test_a_mint_is_a_request_with_its_steps_and_its_call(traced: Traced) -> None:
    answer = await traced.mint(traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="vendor=1")
    assert answer.status_code == 200
    spans = traced.spans()
    server = spans[f"POST {SESSIONS}"]
    call = spans["POST /chatkit/sessions"]
    assert set(spans) == {server.name, "admit", call.name, "record"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {TRACE}
    assert parent_of(server) == CALLER
    assert {parent_of(span) for span in spans.values() if span is not server} == {id_of(server)}
    assert (server.kind, call.kind, spans["admit"].kind) == (SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL)
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": SESSIONS,
        "http.response.status_code": 200,
        "chatkit.tenant": "acme",
    }
    assert attributes(call) == {
        "http.request.method": "POST",
        "chatkit.operation": "create",
        "http.response.status_code": 200,
    }
    assert traced.carried == [{"traceparent": f"00-{TRACE}-{id_of(call)}-01", "tracestate": "vendor=1"}]


async def test_a_request_without_a_trace_begins_one_and_the_call_belongs_to_it(traced: Traced) -> None:
    assert (await traced.mint()).status_code == 200
    spans = traced.spans()
    assert spans[f"POST {SESSIONS}"].parent is None
    call = spans["POST /chatkit/sessions"]
    assert call.context
    [carried] = traced.carried
    assert carried["traceparent"].startswith(f"00-{call.context.trace_id:032x}-{id_of(call)}-")
    assert len({span.context.trace_id for span in spans.values() if span.context}) == 1


async def test_a_caller_who_is_not_sampled_has_no_spans_and_upstream_is_told_so(traced: Traced) -> None:
    assert (await traced.mint(traceparent=f"00-{TRACE}-{CALLER}-00")).status_code == 200
    assert traced.spans() == {}
    [carried] = traced.carried
    version, trace_id, span, flags = carried["traceparent"].split("-")
    assert (version, trace_id, int(flags, 16) & 1) == ("00", TRACE, 0)
    assert span not in (CALLER, "0" * 16)


class TestNoneByItself:
    @pytest.fixture
    def provider(self) -> TracerProvider:
        return TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)

    async def test_the_samplers_word_counts_where_no_caller_has_one(self, traced: Traced) -> None:
        await traced.mint()
        assert traced.spans() == {}
        await traced.mint(traceparent=f"00-{TRACE}-{CALLER}-01")
        assert len(traced.spans()) == 4


async def test_a_refusal_names_its_code(traced: Traced) -> None:
    await traced.mint(body={"user": "mallory"})
    [server] = traced.spans().values()
    assert attributes(server) | {"http.response.status_code": 403, "error.type": "user_mismatch"} == attributes(server)
    assert server.status.status_code is StatusCode.UNSET


async def test_a_path_that_is_no_route_is_in_no_span(traced: Traced) -> None:
    await traced.http.get("/of-my-own-choosing")
    await traced.http.request("PROPFIND", "/v1/logout")
    assert set(traced.spans()) == {"GET none", "other /v1/logout"}


async def test_an_upstream_that_fails_is_an_error_of_ours(traced: Traced) -> None:
    traced.upstream_status = 503
    answer = await traced.mint()
    assert answer.status_code == 503
    found = traced.exporter.get_finished_spans()
    [server] = [span for span in found if span.kind is SpanKind.SERVER]
    calls = [span for span in found if span.kind is SpanKind.CLIENT]
    assert server.status.status_code is StatusCode.ERROR
    assert attributes(server)["error.type"] == "upstream_unavailable"
    for call in calls:
        assert (attributes(call)["error.type"], call.status.status_code) == ("503", StatusCode.ERROR)
    assert [carried["traceparent"].split("-")[2] for carried in traced.carried] == [id_of(call) for call in calls]


async def test_nothing_secret_and_nobodys_name_is_in_a_span(traced: Traced) -> None:
    answer = await traced.mint("alice@example.com")
    session = answer.json()
    await traced.mint("alice@example.com", body={"user": "mallory"})
    token = SIGNER.token("alice@example.com", sid="a-login")
    await traced.http.post(f"{SESSIONS}/{session['id']}/cancel", headers={"authorization": f"Bearer {token}"})
    await traced.http.post("/v1/logout", headers={"authorization": f"Bearer {token}"})
    found = traced.exporter.get_finished_spans()
    text = "".join(span.to_json() for span in found)
    assert len(found) >= 8
    for hidden in (
        "alice",
        "example.com",
        "mallory",
        "a-login",
        "eyJ",
        session["client_secret"],
        session["id"],
        API_KEY,
    ):
        assert hidden not in text


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.ended = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002
        self.ended.wait(30)
        return SpanExportResult.FAILURE


def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "FLUSH", 0.2)
    provider, exporter = TracerProvider(shutdown_on_exit=False), Hanging()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    made = Spans(provider)
    made.call("create").end()
    started = time.monotonic()
    made.close()
    exporter.ended.set()
    assert time.monotonic() - started < 2.0


def test_spans_without_the_packages_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.observe.spans", None)
    config = write_config(tmp_path / "config", tenant_file("acme", IDENTITY))
    with pytest.raises(RuntimeError, match=r"^CHATKIT_MINT_TRACES: .*pip install 'chatkit-mint\[otel\]'$"):
        create_app(Settings(config_dir=config, traces=True), {})
