"""A Redis that may throw away fences is told of at start."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.observe.metrics import Metrics
from service.store.connect import RedisGuard, connect
from service.store.eviction import warn_of_eviction
from support.redis_servers import Server, running


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_may_evict_is_told_of(tmp_path: Path, policy: str) -> None:
    server = Server(tmp_path, "--maxmemory-policy", policy)
    with running([server]), capture_logs() as logs:
        server.start()
        redis = connect(server.url, timeout=2, connections=2)
        async with asyncio.timeout(5):
            await warn_of_eviction(redis, RedisGuard(Metrics(), deadline=2))
        await redis.aclose()
    told = [line["maxmemory_policy"] for line in logs if line["event"] == "redis_may_evict"]
    assert told == ([] if policy == "noeviction" else [policy])


async def test_where_it_may_not_be_asked_nothing_is_said(tmp_path: Path) -> None:
    server = Server(tmp_path, "--maxmemory-policy", "allkeys-lru")
    with running([server]), capture_logs() as logs:
        server.start()
        server.call("ACL", "SETUSER", "mint", "on", ">pw", "~cm:*", "+@all", "-info")
        redis = connect(f"redis://mint:pw@127.0.0.1:{server.port}", timeout=2, connections=2)
        async with asyncio.timeout(5):
            await warn_of_eviction(redis, RedisGuard(Metrics(), deadline=2))
        await redis.aclose()
    assert logs == []
