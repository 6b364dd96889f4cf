"""Verify against the Redis that the authority writes to: one round trip a request, nothing kept."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from chatkit_sessions.record import lua, requests_key, session_id, session_key, uploads_key
from chatkit_sessions.session import NotActive, TooManyRequests, Unavailable, UploadRefused, VerifiedSession

NOT_ACTIVE, ACTIVE, OVER = 0, 1, 2
ACTIVE_STATUS: Final = "active"
CONNECTIONS: Final = 50
"""To Redis, where only its URL is given. Who finds all in use waits, within the deadline."""


class RedisVerifier:
    """See `Verifier`. *redis* is a URL or a client (of a Cluster, too); *deadline*, in seconds, bounds each call."""

    def __init__(self, redis: "str | Redis", *, deadline: float = 1.0) -> None:
        self._own = isinstance(redis, str)
        self._redis: Any = _connect(redis, deadline) if isinstance(redis, str) else redis
        self._deadline = deadline
        self._verify = self._redis.register_script(lua("verify"))
        self._upload = self._redis.register_script(lua("upload"))

    async def verify(self, secret: str) -> VerifiedSession:
        """See `Verifier.verify`."""
        session, _ = await self.take(session_id(secret), 1)
        return session

    async def take(
        self, identity: str, wanted: int, *, tenants: Collection[str] | None = None
    ) -> tuple[VerifiedSession, int]:
        """Count up to *wanted* requests of a session at once; return it and how many were granted.

        With 0 it is looked at only. Where *tenants* are given, others' sessions are not active. Raises as `verify`
        does.
        """
        if tenants is not None and not tenants:
            raise NotActive
        args: list[str | int] = [wanted, *(tenants or ())]
        async with self._answering():
            told = await self._verify(keys=[session_key(identity), requests_key(identity)], args=args)
        if told[0] == OVER:
            raise TooManyRequests(retry_after=max(1, math.ceil(told[1] / 1000)))
        if told[0] != ACTIVE:
            raise NotActive
        return VerifiedSession.read(str(_text(told[2])), json.loads(told[3])), int(told[1])

    async def take_upload(self, session: VerifiedSession, size: int) -> None:
        """See `Verifier.take_upload`."""
        if not await self.count_upload([session.tenant], session.id, size):
            raise UploadRefused

    async def count_upload(self, tenants: Collection[str], identity: str, size: int) -> bool:
        """Count one more file of a session of *tenants*; return whether it grants it. Raises `Unavailable`."""
        keys = [session_key(identity), uploads_key(identity)]
        async with self._answering():
            return bool(await self._upload(keys=keys, args=[size, *tenants]))

    async def ended(self, ids: Collection[str], *, tenants: Collection[str] | None = None) -> set[str]:
        """See `Verifier.ended`; where *tenants* are given, others' sessions are not live either."""
        asked = list(ids)
        async with self._answering(), self._redis.pipeline(transaction=False) as pipe:
            for identity in asked:
                pipe.hmget(session_key(identity), "status", "expires_at", "tenant")
            found = await pipe.execute()
        now = time.time()
        return {
            identity
            for identity, (status, expires_at, owner) in zip(asked, found, strict=True)
            if _text(status) != ACTIVE_STATUS or now >= int(expires_at) or not _is_of(_text(owner), tenants)
        }

    async def aclose(self) -> None:
        """Close the connections, where they are its own."""
        if self._own:
            await self._redis.aclose()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable from error


def _connect(url: str, deadline: float) -> Redis:
    # The usual pool raises where all of its connections are in use: a burst of requests would be refused.
    return Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=deadline))


def _is_of(owner: str | None, tenants: Collection[str] | None) -> bool:
    return tenants is None or owner in tenants


def _text(answer: bytes | str | None) -> str | None:
    """Return what Redis answered as text, of a client that decodes by itself, too."""
    return answer.decode() if isinstance(answer, bytes) else answer
