"""Logins by their own name: for a provider that says which login ended, and not whose it was."""

from typing import Any

from redis.asyncio import Redis

from service.store.connect import RedisGuard
from service.store.records import Shard, UserKeys, login_name, logout_token_key, shard_of
from service.store.scripts import lua
from service.store.tenants import is_crowd, users_of


class LoginStore:
    """Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis: Any = redis  # redis-py's types leave open what these answer
        self._guard = guard
        self._end = redis.register_script(lua("end_login"))

    async def end(self, tenant: str, issuer: str, login: str, *, remember: float) -> list[UserKeys]:
        """Let nobody mint with this login for *remember* seconds; return who has done so lately."""
        name = login_name(issuer, login)
        shard = Shard.of(tenant, shard_of(name))
        async with self._guard():
            entries: list[bytes] = await self._end([shard.ended(name), *shard.users], [name, int(remember) + 1])
        found = {keys for entry in entries for keys in users_of(tenant, name, entry)}
        for entry, key in zip(entries, shard.users, strict=True):
            if is_crowd(entry):
                found.update(await self._crowd(tenant, key, name))
        return sorted(found, key=lambda keys: keys.tag)

    async def _crowd(self, tenant: str, key: str, name: bytes) -> set[UserKeys]:
        """Return those for whom a login's own entry had no more room: somewhere among the whole shard's."""
        found: set[UserKeys] = set()
        pattern = b"".join(b"\\%c" % byte for byte in name) + b"|*"
        cursor = None
        while cursor != 0:
            async with self._guard():
                cursor, some = await self._redis.hscan(key, cursor or 0, match=pattern, count=1000)
            found.update(keys for entry in some for keys in users_of(tenant, entry, b""))
        return found

    async def took_effect(self, tenant: str, issuer: str, jti: str) -> bool:
        """Return whether this logout token has had its effect in the tenant already."""
        async with self._guard():
            return bool(await self._redis.exists(logout_token_key(tenant, issuer, jti)))

    async def note_effect(self, tenant: str, issuer: str, jti: str, *, remember: float) -> None:
        """Remember for *remember* seconds that this logout token has had its effect."""
        async with self._guard():
            await self._redis.set(logout_token_key(tenant, issuer, jti), b"", px=max(1, int(remember * 1000)))
