"""Say in the log where Redis may throw away what must be kept: a fence that is evicted lets a logged-out token mint."""

import asyncio
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.store.cluster import Cluster
from service.store.connect import RedisGuard

KEEPS_ALL: Final = "noeviction"
PATIENCE: Final = 5.0
"""Seconds between tries while Redis does not answer."""

log = structlog.get_logger()


async def warn_of_eviction(redis: Redis, guard: RedisGuard) -> None:
    """Look once, as soon as Redis answers. Where its ACL forbids INFO, say nothing."""
    while True:
        try:
            async with guard():
                servers = await redis.primaries() if isinstance(redis, Cluster) else [redis]
                policies = {await _policy(server) for server in servers}
        except StoreUnavailable:
            await asyncio.sleep(PATIENCE)
            continue
        for policy in sorted(policies - {KEEPS_ALL, None}, key=str):
            log.warning("redis_may_evict", maxmemory_policy=policy, should_be=KEEPS_ALL)
        return


async def _policy(server: Redis) -> str | None:
    try:
        memory: Any = await server.info("memory")
    except ResponseError:
        return None
    policy: str | None = memory.get("maxmemory_policy")
    return policy
