"""Say in the log where Redis may throw away what must be kept: a fence that is evicted lets a logged-out token mint."""

from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.background import until_done
from service.errors import StoreUnavailable
from service.store.cluster import Cluster
from service.store.connect import RedisGuard

KEEPS_ALL: Final = "noeviction"
HINT: Final = "until it answers everybody gets 503; is CHATKIT_MINT_REDIS_URL right? `chatkit-mint doctor` tells more"

log = structlog.get_logger()


async def warn_of_eviction(redis: Redis, guard: RedisGuard) -> None:
    """Look once, as soon as Redis answers. Where its ACL forbids INFO, say nothing."""
    told = False

    async def look() -> None:
        nonlocal told
        try:
            async with guard():
                servers = await redis.primaries() if isinstance(redis, Cluster) else [redis]
                policies = {await _policy(server) for server in servers}
        except StoreUnavailable as refusal:
            if not told:
                log.error("redis_not_reached", reason=refusal.reason, hint=HINT)
            told = True
            raise
        for policy in sorted(policies - {KEEPS_ALL, None}, key=str):
            log.warning("redis_may_evict", maxmemory_policy=policy, should_be=KEEPS_ALL)

    await until_done(look, failed="eviction_not_checked")


async def _policy(server: Redis) -> str | None:
    try:
        memory: Any = await server.info("memory")
    except ResponseError:
        return None
    policy: str | None = memory.get("maxmemory_policy")
    return policy
