"""Limits that are not one user's: of a whole tenant, and of where a visitor comes from."""

import hashlib
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import chain

from redis.asyncio import Redis

from service.errors import RateLimited
from service.observe.metrics import Metrics
from service.session import Window
from service.store.pipeline import Pipeline
from service.store.scripts import lua
from service.store.sessions import rate_headers, window_states

V6_PREFIX = 64
"""Bits of an IPv6 address that count: one customer is given all addresses behind them."""


class SharedLimits:
    """Mints per tenant and per client address, over all replicas. Raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, pipeline: Pipeline, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._rate = redis.register_script(lua("rate"))

    async def admit_tenant(self, tenant: str, windows: Sequence[Window]) -> None:
        """Count one mint; raise `RateLimited`, with when to come back, where the tenant has used a window up."""
        await self._admit("tenant", tenant, tenant, windows)

    async def admit_address(self, tenant: str, address: str, windows: Sequence[Window]) -> None:
        """Count one mint; raise `RateLimited` where the client address has used a window up."""
        tag = hashlib.blake2b(f"{tenant}\0{_network(address)}".encode(), digest_size=16).hexdigest()
        await self._admit("address", tenant, tag, windows)

    async def _admit(self, kind: str, tenant: str, tag: str, windows: Sequence[Window]) -> None:
        if not windows:
            return
        verdict, wait, *states = await self._pipeline.one(
            self._rate, [f"cm:{kind}:{{{tag}}}:rate:{index}" for index in range(len(windows))], [*chain(*windows)]
        )
        if verdict == b"rate":
            self._metrics.limit_hits.labels(self._metrics.tenant(tenant), kind).inc()
            standing = window_states(windows, states)
            raise RateLimited(f"limit of the {kind}", retry_after=wait / 1000, headers=rate_headers(standing, kind))


def _network(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, V6_PREFIX), strict=False))
