"""What a whole tenant is held against: the gate that every mint passes, and who may have something alive."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from service.store.connect import RedisGuard
from service.store.records import DIGEST, SHARDS, Shard, UserKeys
from service.store.scripts import lua

BLOCKED: Final = "cm:blocked"
"""The set of tenants that are blocked."""
SINCE: Final = b"!"
"""The entry of a list that says when it began."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a tenant's list: a login, or a user without one, with all who may have something alive by it."""

    key: str
    entry: bytes
    users: tuple[UserKeys, ...]


class TenantStore:
    """Blocks and users of every tenant. Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._lists: Any = redis  # redis-py's types leave open whether these answer now or later
        self._guard = guard
        self._block = redis.register_script(lua("block"))
        self._unblock = redis.register_script(lua("unblock"))

    async def block(self, tenant: str) -> None:
        """Let nobody of the tenant mint, and none of its logins of until now ever again."""
        async with self._guard():
            # First the list by which a block is found: a name too many on it is harmless.
            await self._lists.sadd(BLOCKED, tenant)
            await asyncio.gather(*(self._block([shard.gate]) for shard in _shards(tenant)))

    async def unblock(self, tenant: str, *, remember: float) -> bool:
        """Let new logins mint again; return whether the tenant was blocked. *remember* is in seconds."""
        async with self._guard():
            closed = await asyncio.gather(
                *(self._unblock([shard.gate], [int(remember) + 1]) for shard in _shards(tenant))
            )
            await self._lists.srem(BLOCKED, tenant)
        return any(closed)

    async def blocked(self, tenants: Sequence[str]) -> list[float | None]:
        """Return since when (Unix seconds) nobody of each tenant can mint; None where they can."""
        async with self._guard():
            listed: set[bytes] = await self._lists.smembers(BLOCKED)
        return [await self.since(tenant) if tenant.encode() in listed else None for tenant in tenants]

    async def since(self, tenant: str) -> float | None:
        """Return since when (Unix seconds) nobody of the tenant can mint; None where somebody can."""
        async with self._guard():
            marks = [await self._redis.hget(shard.gate, "blocked") for shard in _shards(tenant)]
        return min(int(mark) for mark in marks if mark) / 1000 if all(marks) else None

    async def listed(self, tenant: str, *, most: int) -> AsyncIterator[list[Listed]]:
        """Go through who may have something alive, *most* entries at once; some may come twice.

        Entries move from the newer generation to the older one alone: gone through in this order, none is missed.
        """
        for shard in _shards(tenant):
            for key in shard.users:
                cursor = None
                while cursor != 0:
                    async with self._guard():
                        cursor, found = await self._lists.hscan(key, cursor or 0, count=most)
                    some = [
                        Listed(key, entry, tuple(users_of(tenant, entry, users)))
                        for entry, users in found.items()
                        if entry != SINCE
                    ]
                    for start in range(0, len(some), most):
                        yield some[start : start + most]

    async def forget(self, listed: Sequence[Listed]) -> None:
        """Take those who have nothing alive any more off the tenant's list."""
        for key in {each.key for each in listed}:
            async with self._guard():
                await self._redis.hdel(key, *(each.entry for each in listed if each.key == key))

    async def count(self, tenant: str) -> int:
        """Return how many logins, or users without one, may have something alive; some may be counted twice."""
        keys = [key for shard in _shards(tenant) for key in shard.users]
        async with self._guard():
            counts = await asyncio.gather(*(self._redis.hlen(key) for key in keys))
        return sum(max(0, count - 1) for count in counts)  # each has a `SINCE`


def users_of(tenant: str, entry: bytes, users: bytes) -> Iterator[UserKeys]:
    """Return the users of an entry: its content, or (`login|user`, `|user`) the end of its name."""
    digests = users if len(entry) == DIGEST else entry[-DIGEST:]
    for start in range(0, len(digests) - DIGEST + 1, DIGEST):
        yield UserKeys.listed(tenant, digests[start : start + DIGEST])


def is_crowd(users: bytes) -> bool:
    """Return whether a login has more users than its own entry holds."""
    return len(users) % DIGEST != 0  # a `+` ends it


def _shards(tenant: str) -> list[Shard]:
    return [Shard.of(tenant, number) for number in range(SHARDS)]
