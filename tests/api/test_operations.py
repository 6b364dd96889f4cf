"""The operations listener, and how the service ends."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import Caller, Service, Someone, Upstream

pytestmark = pytest.mark.process


def test_livez_says_that_the_process_turns(service: Service) -> None:
    answer = service.ops("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_readyz_names_each_check(service: Service) -> None:
    answer = service.ops("/readyz")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["status"] == "ready"
    assert set(body["checks"]) >= {"redis", "policies", "keys", "draining"}
    assert all(check["ok"] for check in body["checks"].values())
    assert body["checks"]["policies"]["tenants"] > 5


def test_metrics_are_prometheus_text(service: Service, someone: Someone) -> None:
    before = service.counted("mints", tenant="acme", outcome="minted")
    someone().minted()
    answer = service.ops("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert families >= {
        f"chatkit_mint_{name}"
        for name in ("requests", "request_duration_seconds", "refusals", "mints", "cancels", "upstream_calls")
    }
    assert service.counted("mints", tenant="acme", outcome="minted") == before + 1


def test_metrics_are_openmetrics_for_who_asks_for_it(service: Service) -> None:
    answer = service.ops("/metrics", accept="application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert list(openmetrics.text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]


def test_refusals_and_cancels_are_counted(service: Service, someone: Someone) -> None:
    alice = someone()
    refused = service.counted("refusals", code="user_mismatch")
    cancelled = service.counted("cancels", reason="logout", outcome="cancelled")
    alice.minted()
    alice.mint(user="mallory")
    alice.log_out()
    assert service.counted("refusals", code="user_mismatch") == refused + 1
    assert service.counted("cancels", reason="logout", outcome="cancelled") == cancelled + 1


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/admin/tenants"])
def test_operations_are_not_on_the_public_port(service: Service, path: str) -> None:
    answer = service.http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/chatkit/sessions", "/v1/logout", "/nothing"])
def test_the_public_routes_are_not_on_the_operations_port(service: Service, path: str) -> None:
    answer = service.ops(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_on_the_operations_port(service: Service) -> None:
    answer = httpx2.post(f"{service.operations}/metrics", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.fixture
def mortal(config: Path, redis_server: RedisServer, tmp_path: Path) -> Iterator[Service]:
    """A service that its test may end."""
    service = Service(tmp_path / "log", config, redis_server.url(SERVICE_DB))
    try:
        yield service.wait()
    finally:
        service.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_mint_under_way_gets_its_answer_before_the_service_ends(
    mortal: Service, issuer: Issuer, redis_server: RedisServer, upstream: Upstream, number: int
) -> None:
    alice = Caller(mortal, issuer, "slow", f"mortal-{number}")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(alice.minted)
        eventually(lambda: redis_server.leases("slow"))
        assert mortal.process.stop(number) == 0
        session = minting.result()
    assert upstream.status(session["id"]) == "active"
    # The mint's line was still written, and nothing went wrong on the way out.
    assert session["id"] in mortal.process.text()
    assert all("error" not in line for line in mortal.lines())
