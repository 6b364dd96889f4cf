"""The composition root: builds every part, owns the lifespan, keeps nothing global."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import httpx2
import structlog
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Lifespan

from chatkit_sessions.redis import RedisVerifier
from service.configured import audit_sink_of, defaults_of, patience_of, redis_of, spans_of
from service.gauges import Gauges
from service.http.admin import AdminApi
from service.http.assets import asset_routes
from service.http.backchannel import BackChannelApi
from service.http.canonical import CanonicalLine, plain
from service.http.cors import Cors
from service.http.credentials import Credentials
from service.http.described import described_routes
from service.http.operations import OperationsApi
from service.http.public import PublicApi
from service.http.servers import ServersApi
from service.http.verify import RIGHT, VerifyApi
from service.identity.authenticate import Authenticator, bearer_token
from service.identity.keys import KeyCache
from service.identity.logout_tokens import LogoutTokens
from service.identity.service_keys import tenants_of_key
from service.identity.visitors import VisitorCookies
from service.observe.audit import Audit
from service.observe.logs import output, where
from service.observe.metrics import Metrics
from service.observe.sink import Sink
from service.reload import PolicyStore
from service.sessions.backchannel import BackChannelLogout
from service.sessions.cancel import Canceller
from service.sessions.census import Census
from service.sessions.logout import Logout
from service.sessions.mint import Mint
from service.sessions.revoke import Revoke
from service.sessions.sweep import Sweeper
from service.settings import Settings
from service.store.connect import RedisGuard
from service.store.eviction import warn_of_eviction
from service.store.limits import SharedLimits
from service.store.logins import LoginStore
from service.store.pipeline import Pipeline
from service.store.queue import CancelQueue
from service.store.revocations import RevocationStore
from service.store.sessions import SessionStore
from service.store.tenants import TenantStore
from service.transport import make_transport
from service.upstream.authority.issuer import AuthoritySessions
from service.upstream.authority.sessions import Authority
from service.upstream.issuer import SessionIssuer  # noqa: TC001  (the composition root names what it composes)
from service.upstream.openai import OpenAISessions

if TYPE_CHECKING:
    from service.observe.spans import Spans

log = structlog.get_logger()

FINISH = 5.0
"""Seconds at shutdown for what nobody waits for: a cancel that is queued anyway, a record to be put right."""
LEASE_MARGIN = 15
"""Seconds that a reserved slot outlasts all upstream calls of a mint: recording must find it."""


@dataclass(slots=True)
class Control:
    """What signals do to a running service."""

    reload_asked: asyncio.Event
    audit_sink: Sink
    draining: bool = False

    def drain(self) -> None:
        """Tell load balancers, by way of `/readyz`, to look for another."""
        self.draining = True

    def reload(self) -> None:
        """Read the tenant files again, now; the audit file may have been moved away too."""
        self.audit_sink.reopen()
        self.reload_asked.set()

    def finish(self) -> None:
        """Write what the audit file still lacks: a worker ends without what runs at the end of other processes."""
        if self.audit_sink is not output():  # that one has the log, which goes on
            self.audit_sink.close()


def create_app(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    redis: Redis | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    metrics: Metrics | None = None,
    spans: "Spans | None" = None,
    pages: Collection[str] = (),
) -> Starlette:
    """Return the public app; the operations app is its `state.operations`.

    *environ* is what tenant files may name secrets from. *metrics* are given where several processes share them, or
    somebody else reads them. Pages of the origins *pages* may call any tenant: `dev`'s own.
    *redis*, *transport* (to upstreams and issuers), *clock* and *spans* are for tests. Raises `PolicyError` where the
    tenant files are wrong.
    """
    metrics = metrics or Metrics(tenants=settings.metrics_tenants)
    spans = spans or spans_of(settings)
    sink = audit_sink_of(settings, metrics)
    audit = Audit(sink, clock=clock)
    policies = PolicyStore(
        settings.config_dir, defaults_of(settings, environ or {}, pages), metrics, audit, clock=clock
    )
    control = Control(asyncio.Event(), sink)
    redis, transport = redis or redis_of(settings), transport or make_transport()
    openai = OpenAISessions(transport, metrics, patience_of(settings), clock=clock, spans=spans)
    issuers: dict[str, SessionIssuer] = {
        "openai": openai,
        "authority": AuthoritySessions(Authority(redis, clock=clock), metrics, clock=clock),
    }
    keys, census = KeyCache(transport, metrics), Census(clock)
    guard = RedisGuard(metrics, deadline=settings.redis_timeout)
    pipeline = Pipeline(redis, guard)
    store, queue = SessionStore(redis, guard, pipeline), CancelQueue(redis, guard, pipeline)
    canceller = Canceller(queue, issuers, policies.account_at, metrics, audit, census, clock=clock)
    limits = SharedLimits(redis, pipeline, metrics)
    mint = Mint(
        store,
        limits,
        queue,
        issuers,
        canceller,
        census,
        metrics,
        lease_seconds=ceil(settings.upstream_deadline) + LEASE_MARGIN,
        clock=clock,
        spans=spans,
    )

    revoke = Revoke(
        TenantStore(redis, guard),
        RevocationStore(redis, guard, pipeline),
        store,
        queue,
        policies.remember_for,
        clock=clock,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await keys.warm(policies.current.key_sources)
        except Exception as error:  # noqa: BLE001  (told by place, and turned into an exit)
            # Starlette would hand the traceback, messages and all, to the server's log.
            log.error("start_failed", error=where(error))
            raise RuntimeError("the service did not start") from None
        background = [
            asyncio.create_task(work)
            for work in (
                keys.run(),
                Gauges(metrics, policies, keys, census, queue, openai, mint, clock=clock).run(),
                Sweeper(queue, canceller).run(),
                revoke.run(),
                policies.watch(keys, control.reload_asked),
                warn_of_eviction(redis, guard),
            )
        ]
        try:
            yield
        finally:
            control.drain()
            await mint.finish()
            await canceller.finish(within=FINISH)
            for task in background:
                task.cancel()
            await asyncio.wait(background, timeout=FINISH)
            await keys.aclose()
            await transport.aclose()
            await redis.aclose()
            if spans is not None:
                await asyncio.to_thread(spans.close)

    logout = Logout(store, queue, canceller, wait=settings.logout_wait)
    visitors = VisitorCookies(settings.visitor_key_list, clock=clock)
    public = PublicApi(
        policies=lambda: policies.current,
        credentials=Credentials(Authenticator(keys, clock=clock), visitors),
        mint=mint,
        logout=logout,
        store=store,
        limits=limits,
        audit=audit,
        clock=clock,
    )
    backchannel = BackChannelApi(
        policies=lambda: policies.current,
        tokens=LogoutTokens(keys, clock=clock),
        logout=BackChannelLogout(store, LoginStore(redis, guard), queue, canceller),
        audit=audit,
        clock=clock,
    )
    servers = ServersApi(lambda: policies.current, logout, store, audit, clock)
    operations = OperationsApi(
        policies=policies, keys=keys, store=store, metrics=metrics, draining=lambda: control.draining
    )
    admin = AdminApi(settings.admin_key, lambda: policies.current, store, revoke, settings.revoke_rate, audit, clock)
    app = _starlette(
        [
            *public.routes(),
            *backchannel.routes(),
            *servers.routes(),
            *_verify(redis, policies, settings).routes(),
            *asset_routes(),
            *described_routes(),
        ],
        metrics,
        logging.INFO,
        lifespan,
        spans,
        Cors(lambda: policies.current),
    )
    app.state.control = control
    app.state.policies = policies
    app.state.operations = _starlette([*operations.routes(), *admin.routes()], metrics, logging.DEBUG, None)
    return app


def _verify(redis: Redis, policies: PolicyStore, settings: Settings) -> VerifyApi:
    def tenants_of(request: Request) -> list[str]:
        presented = bearer_token(request.headers.getlist("authorization"))
        return tenants_of_key(presented, policies.current.service_keys, RIGHT)

    return VerifyApi(RedisVerifier(redis, deadline=settings.redis_timeout), tenants_of)


def _starlette(
    routes: Sequence[Route],
    metrics: Metrics,
    level: int,
    lifespan: Lifespan[Starlette] | None,
    spans: "Spans | None" = None,
    cors: Cors | None = None,
) -> Starlette:
    names = {route.endpoint: route.path for route in routes}
    for route in routes:
        route.app = plain(route.endpoint)
    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    # The one layer, in place of Starlette's two for errors: it answers every one of them, and each layer costs a mint.
    app.middleware_stack = CanonicalLine(
        cors.around(app.router) if cors else app.router, metrics, names, level, spans, cors
    )
    return app
