"""A Redis client, and the guard that bounds its every use: in time, in connections, in retries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics


def connect(url: str, *, timeout: float, connections: int) -> Redis:
    """Return a client for *url*; *timeout* is in seconds, for connecting. `RedisGuard` bounds the rest.

    No `socket_timeout`: with one, redis-py 8.1 sends by way of `asyncio.wait_for`, which up to Python 3.11 can swallow
    a cancellation, and with it the deadline around the call.

    One retry, and only on a lost connection: a pooled one may have died unnoticed. After a timeout nobody knows
    what was done, so the caller is told instead.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=None,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        health_check_interval=0,
    )
    return Redis.from_pool(pool)  # closes the pool with itself


class RedisGuard:
    """Bounds each use of Redis as a whole and turns every way in which it can fail into `StoreUnavailable`.

    *deadline* is in seconds: waiting for a connection, making one, asking and a retry all count.
    """

    def __init__(self, metrics: Metrics, *, deadline: float) -> None:
        self._metrics = metrics
        self._deadline = deadline

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Guard what is inside."""
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            self._metrics.store_errors.inc()
            raise StoreUnavailable(f"Redis: {type(error).__name__}") from error
