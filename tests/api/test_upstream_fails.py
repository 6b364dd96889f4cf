"""Upstream says no, fails, is away or is too slow: the caller learns a code of ours and nothing else."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import Caller, Service, Someone, Upstream

pytestmark = pytest.mark.process


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "client_secret" not in answer.text


def test_an_unknown_workflow_is_our_configurations_fault(someone: Someone) -> None:
    alice = someone("lost")
    answer = alice.mint()
    refused(answer, 502, "upstream_refused")
    assert "wf_lost" not in answer.text
    assert "Workflow" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"
    line = alice.service.line(answer)
    # The authority's request ids are longer than ours.
    assert len(line["upstream_request_id"]) > len(line["request_id"])
    assert line["upstream_request_id"] not in answer.text
    assert "404" in line["reason"]
    assert "not found" not in str(line)
    assert alice.live() == []


def test_a_refused_mint_gives_its_slot_back(someone: Someone, redis_server: RedisServer) -> None:
    assert someone("lost").mint().status_code == 502
    assert redis_server.leases("lost") == 0


def test_a_failing_upstream(someone: Someone) -> None:
    alice = someone("failing")
    answer = alice.mint()
    refused(answer, 503, "upstream_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert alice.service.line(answer)["upstream_request_id"]


def test_upstreams_own_limit_is_not_the_callers(someone: Someone) -> None:
    """It is the whole account's: the caller did nothing too often."""
    answer = someone("limited").mint()
    refused(answer, 503, "upstream_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_an_upstream_that_does_not_listen(someone: Someone) -> None:
    answer = someone("nowhere").mint()
    refused(answer, 503, "upstream_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_an_answer_that_gets_lost_counts_as_an_orphan(someone: Someone) -> None:
    """The session exists, but nobody knows its id: it is never retried, and ends by itself."""
    alice = someone("dropping")
    before = alice.service.counted("orphans", tenant="dropping")
    refused(alice.mint(), 503, "upstream_unavailable")
    assert alice.service.counted("orphans", tenant="dropping") == before + 1
    # Where nothing listens, nothing can have been created.
    someone("nowhere").mint()
    assert alice.service.counted("orphans", tenant="nowhere") == 0


def test_a_logout_works_whatever_upstream_does_to_mints(someone: Someone) -> None:
    alice = someone("nowhere")
    alice.mint()
    assert alice.log_out().json() == {"cancelled": 0, "pending": 0}
    assert alice.mint().json()["code"] == "login_revoked"


@pytest.fixture(scope="module")
def impatient(config: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits 0.3 s for upstream; the slow authority takes twice as long."""
    output = tmp_path_factory.mktemp("api-impatient") / "log"
    service = Service(
        output,
        config,
        redis_server.url(SERVICE_DB),
        CHATKIT_MINT_UPSTREAM_TIMEOUT="0.3",
        CHATKIT_MINT_LOGOUT_WAIT="0.3",
    )
    try:
        yield service.wait()
    finally:
        service.close()


def test_an_upstream_that_is_too_slow(impatient: Service, issuer: Issuer) -> None:
    alice = Caller(impatient, issuer, "slow", "impatient")
    started = time.monotonic()
    answer = alice.mint()
    refused(answer, 504, "upstream_timeout")
    assert time.monotonic() - started < 2
    assert impatient.counted("orphans", tenant="slow") == 1
    assert alice.live() == []


def test_a_logout_does_not_wait_for_a_slow_upstream(
    impatient: Service, service: Service, issuer: Issuer, upstream: Upstream
) -> None:
    """What upstream has not confirmed within the wait is pending, and is tried again until it has."""
    patient = Caller(service, issuer, "slow", "pending")
    session = patient.minted()
    hasty = Caller(impatient, issuer, "slow", "pending", patient.login)
    assert hasty.log_out().json() == {"cancelled": 0, "pending": 1}
    assert hasty.live() == []
    assert patient.mint().json()["code"] == "login_revoked"
    eventually(lambda: upstream.status(session["id"]) == "cancelled", within=15)


def test_a_caller_who_hangs_up_changes_nothing(someone: Someone, redis_server: RedisServer) -> None:
    """Once upstream was asked, the session is recorded, so that a logout finds it."""
    alice = someone("slow")
    with pytest.raises(httpx2.ReadTimeout):
        alice.service.http.post("/v1/chatkit/sessions", headers=alice.headers, timeout=0.3)
    assert redis_server.leases("slow") == 1
    eventually(alice.live)
    assert alice.log_out().json() == {"cancelled": 1, "pending": 0}
