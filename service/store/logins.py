"""Logins by their own name: for a provider that says which login ended, and not whose it was."""

from redis.asyncio import Redis

from service.store.connect import RedisGuard
from service.store.records import UserKeys, login_key, logout_token_key
from service.store.scripts import lua


class LoginStore:
    """Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._guard = guard
        self._end = redis.register_script(lua("end_login"))

    async def end(self, tenant: str, issuer: str, login: str, *, remember: float) -> list[UserKeys]:
        """Let nobody mint with this login for *remember* seconds; return who has done so lately."""
        async with self._guard():
            tags: list[bytes] = await self._end([login_key(tenant, issuer, login)], [int(remember) + 1])
        return [UserKeys(tag.decode()) for tag in tags]

    async def took_effect(self, tenant: str, issuer: str, jti: str) -> bool:
        """Return whether this logout token has had its effect in the tenant already."""
        async with self._guard():
            return bool(await self._redis.exists(logout_token_key(tenant, issuer, jti)))

    async def note_effect(self, tenant: str, issuer: str, jti: str, *, remember: float) -> None:
        """Remember for *remember* seconds that this logout token has had its effect."""
        async with self._guard():
            await self._redis.set(logout_token_key(tenant, issuer, jti), b"", px=max(1, int(remember * 1000)))
