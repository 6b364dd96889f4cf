"""A client of the primary that the Sentinels name."""

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import RedisError

from service.redis_url import Address, RedisPlace
from service.store.connections import Faithful, bounds


class _TcpConnection(Faithful, SentinelManagedConnection):
    pass


class _TlsConnection(Faithful, SentinelManagedSSLConnection):
    pass


class _Pool(SentinelConnectionPool, BlockingConnectionPool):
    """Of connections to whoever is the primary; callers beyond its size wait for their turn."""

    async def aclose(self) -> None:
        """Close them, and those to the Sentinels."""
        await super().aclose()
        await self.sentinel_manager.aclose()


class _Sentinels(Sentinel):
    """Asks all Sentinels at once, where redis-py asks one after the other.

    A host that died takes its Sentinel along, and a connection to it just hangs: asked first, it would use up every
    caller's time for ever, with two others standing by.
    """

    def __init__(self, hosts: tuple[Address, ...], options: Mapping[str, Any], *, timeout: float) -> None:
        super().__init__(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._timeout = timeout
        self._asking: asyncio.Task[Address] | None = None
        self._trouble: Exception | None = None

    async def discover_master(self, service_name: str) -> Address:
        """Return the primary's address; raise redis-py's `MasterNotFoundError` where no Sentinel names one.

        Callers at the same time share one question, which goes on when one of them has no time left.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(service_name))
            self._asking.add_done_callback(_heard)
        return await asyncio.shield(self._asking)

    async def aclose(self) -> None:
        """Close the connections to the Sentinels."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await super().aclose()

    async def _ask_all(self, service_name: str) -> Address:
        tasks = [asyncio.create_task(self._ask(sentinel, service_name)) for sentinel in self.sentinels]
        try:
            for answer in asyncio.as_completed(tasks, timeout=self._timeout):
                if (address := await answer) is not None:
                    return address
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise MasterNotFoundError("no Sentinel names a primary that is up") from self._trouble

    async def _ask(self, sentinel: "Redis", service_name: str) -> Address | None:
        try:
            masters: Any = await sentinel.sentinel_masters()
        except (RedisError, OSError) as error:
            self._trouble = error.with_traceback(None)
            return None
        self._trouble = None
        state = masters.get(service_name)
        if not state or not self.check_master_state(state, service_name):
            return None
        return state["ip"], state["port"]


def _heard(task: "asyncio.Task[Address]") -> None:
    """Take notice of an error that nobody waits for any more: asyncio would log its text."""
    if not task.cancelled():
        task.exception()


def connect_by_sentinels(place: RedisPlace, *, timeout: float, connections: int) -> Redis:
    """Return a client of the primary. *timeout* is in seconds, for finding and for connecting."""
    options = dict(place.options)
    tls = options.pop("connection_class", None) is SSLConnection
    sentinels = _Sentinels(place.hosts, {**place.sentinel_options, **bounds(timeout), "ssl": tls}, timeout=timeout)
    pool = _Pool(  # type: ignore[no-untyped-call]
        place.service,
        sentinels,
        connection_class=_TlsConnection if tls else _TcpConnection,
        max_connections=connections,
        timeout=timeout,
        **options,
        **bounds(timeout),
    )
    return Redis.from_pool(pool)  # closes the pool with itself
