"""Examine Redis, keys and upstreams, as a service with this environment would use them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

from service.configured import patience_of, redis_of
from service.doctor.findings import Finding, ok, wrong
from service.doctor.redis import examine_private, examine_redis
from service.doctor.upstream import examine_upstream
from service.identity.keys import KeyCache, describe
from service.observe.metrics import Metrics
from service.policy.tenant import Policies, Tenant
from service.settings import Settings
from service.store.connect import RedisGuard
from service.transport import make_transport
from service.upstream.authority.issuer import AuthoritySessions
from service.upstream.authority.sessions import Authority
from service.upstream.issuer import SessionIssuer
from service.upstream.openai import OpenAISessions

SIDE_BY_SIDE: Final = 8
"""Tenants examined at once."""


async def examine(settings: Settings, policies: Policies, *, only: str | None, mint: bool) -> AsyncIterator[Finding]:
    """Yield what is found, in order; of *only* one tenant where it is named. Without *mint* no upstream is asked."""
    metrics, transport = Metrics(), make_transport()
    issuers: dict[str, SessionIssuer] = {"openai": OpenAISessions(transport, metrics, patience_of(settings))}
    keys = KeyCache(transport, metrics)
    redis = None
    try:
        if settings.redis_url is None:
            for finding in examine_private():
                yield finding
        else:
            redis = redis_of(settings)
            for finding in await examine_redis(redis, RedisGuard(metrics, deadline=settings.redis_timeout)):
                yield finding
            issuers["authority"] = AuthoritySessions(Authority(redis), metrics)
        tenants = [tenant for name, tenant in sorted(policies.tenants.items()) if only in (None, name)]
        slots = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(tenant: Tenant) -> list[Finding]:
            async with slots:
                return [
                    *await _keys(tenant, keys),
                    *(await _upstream(tenant, policies, issuers) if mint else ()),
                ]

        for task in [asyncio.create_task(one(tenant)) for tenant in tenants]:
            for finding in await task:
                yield finding
    finally:
        await keys.aclose()
        await transport.aclose()
        if redis is not None:
            await redis.aclose()


async def _keys(tenant: Tenant, cache: KeyCache) -> list[Finding]:
    """Fetch the signing keys of whom the tenant believes."""
    found = []
    for source in dict.fromkeys(trust.keys for trust in tenant.trusts):
        await cache.fetch(source)
        count, problem = cache.state(source)
        subject = f"tenant {tenant.name}: keys of {describe(source)}"
        if problem:
            hint = "is the address right, and reachable from here? Nobody of this tenant gets in until it is"
            found.append(wrong(subject, problem, hint))
        else:
            found.append(ok(subject, f"{count} usable"))
    return found


async def _upstream(tenant: Tenant, policies: Policies, issuers: Mapping[str, SessionIssuer]) -> list[Finding]:
    others = {
        (other.account.base_url, other.account.api_keys): other.account
        for other in policies.tenants.values()
        if other.account.api_keys and other.account.api_keys != tenant.account.api_keys
    }
    return await examine_upstream(tenant, issuers, list(others.values()))
