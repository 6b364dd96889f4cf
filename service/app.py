"""The composition root: builds every part, owns the lifespan, keeps nothing global."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx2
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Lifespan

from service.errors import Refusal
from service.http.canonical import CanonicalLine
from service.http.operations import OperationsApi
from service.http.problems import answer_http_exception, answer_refusal
from service.http.public import PublicApi
from service.identity.authenticate import Authenticator
from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.policy.compile import Defaults
from service.policy.load import load_policies
from service.policy.tenant import Policies
from service.session import Account
from service.sessions.cancel import Canceller
from service.sessions.logout import Logout
from service.sessions.mint import Mint
from service.sessions.sweep import Sweeper
from service.settings import Settings
from service.store.connect import connect
from service.store.queue import CancelQueue
from service.store.sessions import SessionStore
from service.upstream.authority.issuer import AuthoritySessions
from service.upstream.authority.sessions import Authority
from service.upstream.issuer import SessionIssuer  # noqa: TC001  (the composition root names what it composes)
from service.upstream.openai import OpenAISessions
from service.upstream.transport import make_transport

LEASE_MARGIN = 15
"""Seconds that a reserved slot outlasts the longest upstream call: recording must find it."""


@dataclass(slots=True)
class State:
    """What changes while the service runs."""

    policies: Policies
    draining: bool = False

    def account_of(self, tenant: str) -> Account | None:
        """Return a tenant's account as the policies stand now."""
        found = self.policies.tenants.get(tenant)
        return found.account if found else None


def create_app(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    redis: Redis | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Return the public app; the operations app is its `state.operations`.

    *environ* is what tenant files may name secrets from. *redis*, *transport* (to upstreams and issuers) and
    *clock* are for tests. Raises `PolicyError` where the tenant files are wrong.
    """
    defaults = Defaults(environ or {}, settings.openai_api_key, settings.openai_base_url)
    state = State(load_policies(settings.config_dir, defaults))
    metrics = Metrics()
    redis = redis or _connect(settings)
    transport = transport or make_transport()
    issuers: dict[str, SessionIssuer] = {
        "openai": OpenAISessions(transport, metrics, timeout=settings.upstream_timeout, clock=clock),
        "authority": AuthoritySessions(Authority(redis, clock=clock), metrics, clock=clock),
    }
    keys = KeyCache(transport, metrics)
    store, queue = SessionStore(redis, metrics), CancelQueue(redis, metrics)
    canceller = Canceller(queue, issuers, state.account_of, metrics, clock=clock)
    lease = int(settings.upstream_timeout) + LEASE_MARGIN
    mint = Mint(store, issuers, canceller, metrics, lease_seconds=lease, clock=clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await keys.warm({trust.keys for trusts in state.policies.trusts.values() for trust in trusts})
        sweeping = asyncio.create_task(Sweeper(queue, canceller).run())
        try:
            yield
        finally:
            state.draining = True
            await mint.finish()
            await canceller.finish()
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await keys.aclose()
            await transport.aclose()
            await redis.aclose()

    public = PublicApi(
        policies=lambda: state.policies,
        authenticator=Authenticator(keys, clock=clock),
        mint=mint,
        logout=Logout(store, queue, canceller, wait=settings.logout_wait),
        store=store,
        clock=clock,
    )
    operations = OperationsApi(
        policies=lambda: state.policies, keys=keys, store=store, metrics=metrics, draining=lambda: state.draining
    )
    app = _starlette(public.routes(), metrics, logging.INFO, lifespan)
    app.state.operations = _starlette(operations.routes(), metrics, logging.DEBUG, None)
    return app


def _connect(settings: Settings) -> Redis:
    if settings.redis_url is None:
        raise ValueError("create_app needs a redis_url, or a redis")
    url = settings.redis_url.get_secret_value()
    return connect(url, timeout=settings.redis_timeout, connections=settings.redis_connections)


def _starlette(
    routes: Sequence[Route], metrics: Metrics, level: int, lifespan: Lifespan[Starlette] | None
) -> Starlette:
    names = {route.endpoint: route.path for route in routes}
    app = Starlette(
        routes=routes,
        middleware=[Middleware(CanonicalLine, metrics=metrics, routes=names, level=level)],
        exception_handlers={
            Refusal: answer_refusal,
            HTTPException: answer_http_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
