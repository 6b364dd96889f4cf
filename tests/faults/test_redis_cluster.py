"""A Redis Cluster that loses primaries: only who needs them waits, and no session gets out of reach."""

import time

import pytest

from api.stack import Service
from faults.conftest import ServiceOn
from support.redis_servers import ClusterServers, Server, until
from support.storm import Mint, Stage, Storm

pytestmark = pytest.mark.process

FAILOVER = 10.0
"""Seconds within which a replica has taken over, on a busy machine too."""
LAG = 0.2
"""Seconds of writes that a failover may lose: a primary tells its replica after it has answered."""


@pytest.fixture(scope="module")
def service(cluster: ClusterServers, service_on: ServiceOn) -> Service:
    return service_on(cluster.url)


def test_a_lost_primary_without_a_replica_costs_those_alone_who_need_it(
    cluster: ClusterServers, service: Service, stage: Stage
) -> None:
    lost = cluster.primaries[1]
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(5)
        lost_at = time.monotonic()
        lost.kill()
        until(lambda: len(storm.refused()) > 5 and time.monotonic() > lost_at + 1.0)
        assert service.ops("/readyz").status_code == 200
        # Who needs nothing of it notices nothing.
        assert [mint for mint in storm.mints if mint.handed_out and mint.asked_at > lost_at]
        lost.start()
        back_at = time.monotonic()
        until(lambda: served(cluster, lost, storm, since=back_at), within=FAILOVER)
        storm.wait_for_mints(5)
    storm.check_answers()
    assert all(lost in owners(cluster, mint) for mint in storm.refused())
    gone = [m for m in storm.mints if m.handed_out and m.asked_at < lost_at and lost in owners(cluster, m)]
    storm.check_revocable(lost=gone)


def test_a_frozen_primary_is_left_for_its_replica(cluster: ClusterServers, service: Service, stage: Stage) -> None:
    """It neither answers nor refuses, and it goes on later as if nothing had happened."""
    frozen = cluster.primaries[0]
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(5)
        frozen_at = time.monotonic()
        frozen.freeze()
        try:
            until(storm.refused)
            until(lambda: served(cluster, frozen, storm, since=frozen_at + 1), within=FAILOVER)
        finally:
            frozen.thaw()
        storm.wait_for_mints(5)
    storm.check_answers()
    assert all(frozen in owners(cluster, mint) for mint in storm.refused())
    late = [m for m in storm.mints if m.handed_out and frozen_at - LAG < m.answered_at and m.asked_at < frozen_at]
    storm.check_revocable(lost=late)


def owners(cluster: ClusterServers, mint: Mint) -> set[Server]:
    """The primaries that a mint needs."""
    return {cluster.owner(key) for key in mint.keys}


def served(cluster: ClusterServers, primary: Server, storm: Storm, *, since: float) -> bool:
    """Whether somebody who needs this primary was given a session."""
    mints = [mint for mint in list(storm.mints) if mint.handed_out and mint.asked_at > since]
    return any(primary in owners(cluster, mint) for mint in mints)
