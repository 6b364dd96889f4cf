"""A Redis client, and the guard that bounds its every use: in time, in connections, in retries."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError, InvalidResponse, NoPermissionError, RedisError, ResponseError

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.redis_url import Address, parse_redis_url
from service.store.cluster import Cluster
from service.store.connections import OURS, bounds
from service.store.sentinel import connect_by_sentinels
from service.transport import causes, meaning

MEANINGS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (AuthenticationError, "", "it wants a password, or another one"),
    (NoPermissionError, "", "its user may not do this"),
    (InvalidResponse, "", "what answers is no Redis"),
    (MasterNotFoundError, "", "no Sentinel names a primary of this name"),
    (ResponseError, "cluster support disabled", "it is no cluster: redis:// is for one server"),
    (ResponseError, "DB index", "it has no database of this number"),
)
"""What an error of Redis is about, by its type and a part of its text."""
PROBE: Final = "cm:probe"
PROBE_KEPT: Final = 60
"""Seconds."""


def connect(url: str, *, timeout: float, connections: int) -> Redis:
    """Return a client for *url*; *timeout* is in seconds, for connecting. `RedisGuard` bounds the rest.

    Of a cluster it has up to *connections* connections a node. Callers beyond wait for their turn.
    """
    place = parse_redis_url(url)
    options = dict(place.options)
    kind = OURS[options.pop("connection_class", None)]

    def client(**where: Any) -> Redis:
        pool = BlockingConnectionPool(
            connection_class=kind,
            max_connections=connections,
            timeout=timeout,
            **options,
            **where,
            **bounds(timeout),
        )
        return Redis.from_pool(pool)  # closes the pool with itself

    def node(address: Address) -> Redis:
        return client(host=address[0], port=address[1])

    match place.form:
        case "cluster":
            return Cluster(place.hosts, node, patience=timeout)
        case "sentinel":
            return connect_by_sentinels(place, timeout=timeout, connections=connections)
        case "single":
            return client()


async def probe(redis: Redis) -> None:
    """Raise what stands in the way of a mint: of a server that reads and doesn't write (`-READONLY`, `-OOM`), too.

    A cluster is asked whether it is up: with one primary gone, the users of the others can still mint.
    """
    if isinstance(redis, Cluster):
        await redis.ping()
    else:
        await redis.set(PROBE, "", ex=PROBE_KEPT)


class RedisGuard:
    """Bounds each use of Redis as a whole and turns every way in which it can fail into `StoreUnavailable`.

    *deadline* is in seconds: waiting for a connection, making one, asking and a retry all count.
    """

    def __init__(self, metrics: Metrics, *, deadline: float) -> None:
        self._metrics = metrics
        self.deadline = deadline

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Guard what is inside."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.deadline):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise self.refusal(error) from error
        finally:
            self.count(time.perf_counter() - started)

    def count(self, seconds: float) -> None:
        """Count a call that took so long."""
        self._metrics.store_seconds.observe(seconds)

    def refusal(self, error: Exception) -> StoreUnavailable:
        """Count a failure of Redis, and return what callers get for it."""
        self._metrics.store_errors.labels(_name(error)).inc()
        words = _words(error)
        refusal = StoreUnavailable(f"Redis: {_name(error)}" + (f" ({words})" if words else ""))
        refusal.__cause__ = error
        return refusal


def _words(error: BaseException) -> str:
    """Return what the error means for whoever configured Redis; nothing where its name says it all."""
    for each in causes(error):
        told = next((words for kind, text, words in MEANINGS if isinstance(each, kind) and text in str(each)), None)
        if words := told or meaning(each):
            return words
    return ""


def _name(error: Exception) -> str:
    """Return what Redis calls its error (`NOREPLICAS`), where redis-py has no class for it; never its text.

    Redis 6.2 tells of an error inside a script in the middle of another's text.
    """
    code = re.search(r"(?:^| -)([A-Z]{3,20}) ", str(error)) if type(error) is ResponseError else None
    return code[1] if code else type(error).__name__
