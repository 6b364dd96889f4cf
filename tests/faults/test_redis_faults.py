"""One Redis in every kind of trouble: no secret that can't be revoked, no hung request, no restart of the service."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from api.stack import Service
from faults.conftest import ServiceOn
from support.redis_servers import Server, until
from support.storm import DEADLINE, Stage, Storm

pytestmark = pytest.mark.process

HURTS = 0.8
"""Seconds that a fault lasts: more than the deadline of one step."""
NOBODY = "1"
"""A port of loopback where no primary is."""

Fault = Callable[[Server], Iterator[None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def service(server: Server, service_on: ServiceOn) -> Service:
    return service_on(server.url)


def frozen(server: Server) -> Iterator[None]:
    server.freeze()
    yield
    server.thaw()


def demoted(server: Server) -> Iterator[None]:
    """It answers `-READONLY`."""
    server.call("REPLICAOF", "127.0.0.1", NOBODY)
    yield
    server.call("REPLICAOF", "NO", "ONE")


def cut_off(server: Server) -> Iterator[None]:
    """It answers `-MASTERDOWN`."""
    server.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.call("REPLICAOF", "127.0.0.1", NOBODY)
    yield
    server.call("REPLICAOF", "NO", "ONE")
    server.call("CONFIG", "SET", "replica-serve-stale-data", "yes")


def loading(server: Server) -> Iterator[None]:
    """It has restarted and answers `-LOADING` for a second and more."""
    with server.client() as client:
        for number in range(100):
            client.set(f"ballast:{number}", secrets.token_hex(2048))
        delay = str(1_500_000 // client.dbsize())
        client.shutdown(save=True)
    server.kill()
    # Microseconds a key, and how often it looks at its clients meanwhile.
    server.start("--key-load-delay", delay, "--loading-process-events-interval-bytes", "1024", wait=False)
    yield
    until(lambda: server.call("SET", "ballast:0", "x"))
    (server.home / "dump.rdb").unlink()


def full(server: Server) -> Iterator[None]:
    """It answers `-OOM`."""
    server.call("CONFIG", "SET", "maxmemory", "1")
    yield
    server.call("CONFIG", "SET", "maxmemory", "0")


def without_replicas(server: Server) -> Iterator[None]:
    """It answers `-NOREPLICAS`."""
    server.call("CONFIG", "SET", "min-replicas-to-write", "1")
    yield
    server.call("CONFIG", "SET", "min-replicas-to-write", "0")


def crowded(server: Server) -> Iterator[None]:
    """It takes no more connections, and has dropped those that there were."""
    with server.client() as ours:
        ours.ping()
        before = ours.config_get("maxclients")["maxclients"]
        ours.config_set("maxclients", 1)
        ours.client_kill_filter(_type="normal", skipme=True)
        yield
        ours.config_set("maxclients", before)


FAULTS: list[tuple[Fault, str]] = [
    (frozen, "TimeoutError"),
    (demoted, "NotPrimary"),
    (cut_off, "NotPrimary"),
    (loading, "BusyLoadingError"),
    (full, "OutOfMemoryError"),
    (without_replicas, "NOREPLICAS"),
    (crowded, "ConnectionError"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS)
def test_a_fault_costs_no_more_than_itself(
    fault: Fault, says: str, server: Server, service: Service, stage: Stage
) -> None:
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(3)
        with contextmanager(fault)(server):
            started = time.monotonic()
            until(lambda: not_ready(service).startswith(f"Redis: {says}"), within=DEADLINE)
            until(lambda: storm.refused() and time.monotonic() > started + HURTS)
            assert not storm.one().handed_out
        storm.wait_for_mints(3)
        assert service.ops("/readyz").status_code == 200
    storm.check_answers()
    storm.check_revocable()


def not_ready(service: Service) -> str:
    """Why, in the words of `/readyz`, which come in time too."""
    asked = time.monotonic()
    answer = service.ops("/readyz")
    assert time.monotonic() - asked < DEADLINE
    return str(answer.json()["checks"]["redis"].get("reason")) if answer.status_code == 503 else ""


def test_scripts_that_redis_forgot_are_sent_again(server: Server, service: Service, stage: Stage) -> None:
    with Storm(stage, service).raging() as storm:
        for _ in range(5):
            storm.wait_for_mints(1)
            server.call("SCRIPT", "FLUSH")
    assert storm.refused() == []
    storm.check_answers()
    storm.check_revocable()


def test_a_redis_that_restarts_empty_costs_what_it_knew(server: Server, service: Service, stage: Stage) -> None:
    """The sessions of before can't be revoked; they end by themselves within ten minutes. All later ones can."""
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(3)
        server.kill()
        lost_at = time.monotonic()
        until(lambda: storm.refused() and time.monotonic() > lost_at + HURTS)
        server.start()
        storm.wait_for_mints(3)
    storm.check_answers()
    lost = [mint for mint in storm.mints if mint.handed_out and mint.asked_at < lost_at]
    assert lost
    storm.check_revocable(lost=lost)
    assert all(mint.answer.json()["expires_at"] <= time.time() + 600 for mint in lost)


def test_a_crash_costs_nothing_with_an_append_only_file(server: Server, service: Service, stage: Stage) -> None:
    server.call("CONFIG", "SET", "appendonly", "yes")
    until(lambda: server.call("INFO", "persistence")["aof_rewrite_in_progress"] == 0)
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(10)
        server.kill()
        until(storm.refused)
        server.start("--appendonly", "yes")
        storm.wait_for_mints(3)
    server.call("CONFIG", "SET", "appendonly", "no")
    storm.check_answers()
    storm.check_revocable()


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_thirty_seconds_of_silence(server: Server, service: Service, stage: Stage) -> None:
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(20)
        server.freeze()
        frozen_at = time.monotonic()
        until(lambda: time.monotonic() > frozen_at + 30, within=40)
        server.thaw()
        storm.wait_for_mints(20)
    assert len(storm.refused()) > 30
    storm.check_answers()
    storm.check_revocable()
