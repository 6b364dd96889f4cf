"""A primary behind Sentinels that dies, with the Sentinel on its host: the replica takes over."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from faults.conftest import ServiceOn
from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect
from support.redis_servers import SentinelServers, until
from support.storm import Stage, Storm

FAILOVER = 15.0
"""Seconds within which a replica has taken over, on a busy machine too."""
LAG = 0.2
"""Seconds of writes that a failover may lose: a primary tells its replica after it has answered."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    servers = SentinelServers(tmp_path_factory.mktemp("sentinel"))
    try:
        yield servers.start()
    finally:
        for server in servers.servers:
            server.kill()


async def test_the_client_is_bounded_as_every_other(servers: SentinelServers) -> None:
    """Callers wait for their turn, and those who give up leave nothing broken behind; no socket timeout: see 0008."""
    for _ in range(5):
        redis = connect(servers.url, timeout=2.0, connections=2)
        count = redis.register_script("return redis.call('INCR', KEYS[1])")

        async def impatient(count: Any = count) -> None:
            try:
                async with RedisGuard(Metrics(), deadline=secrets.randbelow(100) / 10_000)():
                    await count(["impatient"])
            except StoreUnavailable:
                pass

        await asyncio.gather(*(impatient() for _ in range(100)))
        assert len(set(await asyncio.gather(*(count(["n"]) for _ in range(50))))) == 50
        pool: Any = redis.connection_pool
        assert not pool._in_use_connections
        assert len(pool._available_connections) <= 2
        for each in (pool, *(sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels)):
            assert each.connection_kwargs["socket_timeout"] is None
        await redis.aclose()


@pytest.mark.process
def test_a_failover_needs_no_restart(servers: SentinelServers, service_on: ServiceOn, stage: Stage) -> None:
    service = service_on(servers.url)
    with Storm(stage, service).raging() as storm:
        storm.wait_for_mints(5)
        lost_at = time.monotonic()
        # A host that died says nothing, not even that it is gone.
        servers.primary.freeze()
        servers.sentinels[0].freeze()
        until(storm.refused)
        assert service.ops("/readyz").status_code == 503
        until(lambda: [m for m in list(storm.mints) if m.handed_out and m.asked_at > lost_at], within=FAILOVER)
        storm.wait_for_mints(5)
        assert service.ops("/readyz").status_code == 200
        servers.primary.thaw()
        servers.sentinels[0].thaw()
        storm.wait_for_mints(5)
    storm.check_answers()
    late = [m for m in storm.mints if m.handed_out and lost_at - LAG < m.answered_at and m.asked_at < lost_at]
    storm.check_revocable(lost=late)
