"""What a whole tenant is held against: the gate that every mint passes, and who may have something alive."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from service.store.connect import RedisGuard
from service.store.records import SHARDS, UserKeys, gate_key, users_key
from service.store.scripts import lua

BLOCKED: Final = "cm:blocked"
"""The set of tenants that are blocked."""


class TenantStore:
    """Blocks and users of every tenant. Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._sets: Any = redis  # redis-py's types leave open whether these answer now or later
        self._guard = guard
        self._block = redis.register_script(lua("block"))
        self._unblock = redis.register_script(lua("unblock"))

    async def block(self, tenant: str) -> None:
        """Let nobody of the tenant mint, and none of its logins of until now ever again."""
        async with self._guard():
            # First the list by which a block is found: a name too many on it is harmless.
            await self._sets.sadd(BLOCKED, tenant)
            await asyncio.gather(*(self._block([gate_key(tenant, shard)]) for shard in range(SHARDS)))

    async def unblock(self, tenant: str, *, remember: float) -> bool:
        """Let new logins mint again; return whether the tenant was blocked. *remember* is in seconds."""
        async with self._guard():
            closed = await asyncio.gather(
                *(self._unblock([gate_key(tenant, shard)], [int(remember) + 1]) for shard in range(SHARDS))
            )
            await self._sets.srem(BLOCKED, tenant)
        return any(closed)

    async def blocked(self, tenants: Sequence[str]) -> list[float | None]:
        """Return since when (Unix seconds) nobody of each tenant can mint; None where they can."""
        async with self._guard():
            listed: set[bytes] = await self._sets.smembers(BLOCKED)
        return [await self.since(tenant) if tenant.encode() in listed else None for tenant in tenants]

    async def since(self, tenant: str) -> float | None:
        """Return since when (Unix seconds) nobody of the tenant can mint; None where somebody can."""
        async with self._guard():
            marks = [await self._redis.hget(gate_key(tenant, shard), "blocked") for shard in range(SHARDS)]
        return min(int(mark) for mark in marks if mark) / 1000 if all(marks) else None

    async def users(self, tenant: str, shard: int, *, past: int, most: int) -> list[UserKeys]:
        """Return some of the shard's users who may have something alive, but for the first *past*."""
        async with self._guard():
            tags: list[bytes] = await self._sets.zrange(users_key(tenant, shard), past, past + most - 1)
        return [UserKeys(tag.decode()) for tag in tags]

    async def forget(self, keys: UserKeys) -> None:
        """Take a user, who has nothing alive any more, off the tenant's list."""
        async with self._guard():
            await self._redis.zrem(users_key(keys.tenant, keys.shard), keys.tag)

    async def count(self, tenant: str) -> int:
        """Return how many users may have something alive."""
        async with self._guard():
            counts = await asyncio.gather(*(self._redis.zcard(users_key(tenant, shard)) for shard in range(SHARDS)))
        return sum(counts)
