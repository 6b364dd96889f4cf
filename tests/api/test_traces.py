"""Traces across processes: the log, the audit stream and a real OTLP collector see the same one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually, stopped_exit
from api.stack import API_KEYS, Caller, Service
from support.processes import COMMAND, Process, clean_environ

pytestmark = pytest.mark.process

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


class Collector:
    """Takes spans as OTLP over HTTP brings them."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, self.headers["content-type"], body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.raw = b""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, media_type: str, body: bytes) -> None:
        assert (path, media_type) == ("/v1/traces", "application/x-protobuf")
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def mint(who: Caller, **headers: str) -> httpx2.Response:
    return who.service.http.post("/v1/chatkit/sessions", headers={**who.headers, **headers})


def test_the_log_and_the_audit_stream_carry_the_callers_trace(service: Service, issuer: Issuer) -> None:
    alice = Caller(service, issuer, "acme", "traced")
    answer = mint(alice, **PARENT)
    assert answer.status_code == 200
    assert service.line(answer)["trace_id"] == TRACE
    assert [line["trace_id"] for line in service.audit(answer)] == [TRACE]
    anew = mint(alice, traceparent=PARENT["traceparent"].upper())
    assert service.line(anew)["trace_id"] == service.audit(anew)[0]["trace_id"] != TRACE


@pytest.mark.parametrize("workers", ["1", "2"])
def test_spans_come_to_a_collector_also_those_of_the_last_moment(
    config: Path, redis_server: RedisServer, issuer: Issuer, tmp_path: Path, collector: Collector, workers: str
) -> None:
    settings = {"CHATKIT_MINT_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    settings |= {"CHATKIT_MINT_WORKERS": workers, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    service = Service(tmp_path / "log", config, redis_server.url(SERVICE_DB), **settings)
    try:
        alice = Caller(service.wait(), issuer, "acme", "spanned-alice")
        answer = mint(alice, **PARENT)
        assert answer.status_code == 200
        assert service.line(answer)["trace_id"] == TRACE
        anew = service.line(mint(alice))["trace_id"]
        assert collector.spans == []
    finally:
        service.close()
    assert collector.services == {"chatkit-mint"}
    mine = {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}
    assert set(mine) == {"POST /v1/chatkit/sessions", "admit", "POST /chatkit/sessions", "record"}
    server = mine["POST /v1/chatkit/sessions"]
    assert server.parent_span_id.hex() == CALLER
    assert mine["POST /chatkit/sessions"].parent_span_id == server.span_id
    assert sum(span.trace_id.hex() == anew for span in collector.spans) == 4
    for hidden in ("spanned-alice", alice.login, alice.token, answer.json()["client_secret"], *API_KEYS.values()):
        assert hidden.encode() not in collector.raw


def test_a_collector_that_is_not_there_holds_up_neither_a_request_nor_the_end(
    config: Path, redis_server: RedisServer, issuer: Issuer, tmp_path: Path
) -> None:
    settings = {"CHATKIT_MINT_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    service = Service(tmp_path / "log", config, redis_server.url(SERVICE_DB), **settings)
    try:
        alice = Caller(service.wait(), issuer, "acme", "nobody-listens")
        assert [mint(alice).status_code for _ in range(20)] == [200] * 20
        service.process.popen.terminate()
        assert eventually(lambda: service.process.popen.poll() is not None, within=15.0)
        assert service.process.popen.returncode == 0
    finally:
        service.close()


def test_spans_without_the_packages_end_the_start(config: Path, redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError")
    environ = {"CHATKIT_MINT_CONFIG_DIR": str(config), "CHATKIT_MINT_REDIS_URL": redis_server.url(SERVICE_DB)}
    environ |= {"CHATKIT_MINT_TRACES": "true", "PYTHONPATH": str(tmp_path), **API_KEYS}
    # Started, not forked: what Python finds is the point.
    process = Process("serve", output=tmp_path / "log", environ=clean_environ(**environ), command=[*COMMAND])
    assert stopped_exit(process) == 1
    assert process.text().splitlines()[-1].startswith("CHATKIT_MINT_TRACES: needs OpenTelemetry")
    assert "Traceback" not in process.text()
