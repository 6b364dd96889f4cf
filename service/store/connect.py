"""A Redis client whose every call is bounded: in time, in connections, in retries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics


def connect(url: str, *, timeout: float, connections: int) -> Redis:
    """Return a client for *url*; *timeout* is in seconds and bounds connecting, waiting and answering each.

    One retry, and only on a lost connection: a pooled one may have died unnoticed. After a timeout nobody knows
    what was done, so the caller is told instead.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        health_check_interval=0,
    )
    return Redis(connection_pool=pool)


@asynccontextmanager
async def store_errors(metrics: Metrics) -> AsyncIterator[None]:
    """Turn every way in which Redis can fail into `StoreUnavailable`."""
    try:
        yield
    except (RedisError, RedisConnectionError, RedisTimeoutError, OSError, TimeoutError) as error:
        metrics.store_errors.inc()
        raise StoreUnavailable(f"Redis: {type(error).__name__}") from error
