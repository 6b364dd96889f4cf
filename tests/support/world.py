"""The use cases on a real Redis and the real authority, with an upstream that fails when a test says so."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from service.contract import CreateSession
from service.errors import UpstreamUnavailable
from service.observe.audit import Audit
from service.observe.metrics import Metrics
from service.observe.sink import Sink
from service.principal import Principal
from service.session import Account, Grant, Limits, Minted, Session
from service.sessions.cancel import Canceller
from service.sessions.census import Census
from service.sessions.logout import Logout
from service.sessions.mint import Mint
from service.sessions.revoke import Revoke
from service.sessions.sweep import Sweeper
from service.store.connect import RedisGuard
from service.store.limits import SharedLimits
from service.store.pipeline import Pipeline
from service.store.queue import CancelQueue
from service.store.records import SHARDS, UserKeys, due_shard
from service.store.revocations import RevocationStore
from service.store.sessions import SessionStore
from service.store.tenants import TenantStore
from service.upstream.authority.issuer import AuthoritySessions
from service.upstream.authority.sessions import Authority

DAY = 86_400.0


@dataclass
class Upstream:
    """The authority, with trouble on the way there. The sets name tenants."""

    inner: AuthoritySessions
    cancels_fail: set[str] = field(default_factory=set)
    cancels_hang: set[str] = field(default_factory=set)
    cancel_raises: Exception | None = None
    create_raises: Exception | None = None
    before_answer: Callable[[Minted], object] | None = None
    cancelled: list[str] = field(default_factory=list)
    hanging: int = 0

    async def create(self, account: Account, body: CreateSession) -> Minted:
        if self.create_raises:
            raise self.create_raises
        minted = await self.inner.create(account, body)
        if self.before_answer:
            waiting = self.before_answer(minted)
            if asyncio.iscoroutine(waiting):
                await waiting
        return minted

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        if self.cancel_raises:
            raise self.cancel_raises
        if account.tenant in self.cancels_hang:
            self.hanging += 1
            await asyncio.sleep(3600)
        if account.tenant in self.cancels_fail:
            raise UpstreamUnavailable("as the test says")
        session = await self.inner.cancel(account, session_id)
        self.cancelled.append(session_id)
        return session


async def names(redis: Redis, keys: UserKeys) -> list[str]:
    """What stands among a user's live sessions: sessions, leases and marks."""
    lines: Any = await redis.get(keys.live)
    return [line.partition("|")[0] for line in (lines or b"").decode().split("\n") if line]


NOWHERE = Sink(Path(os.devnull), stream="audit")


class World:
    """One replica. Two of them on one Redis are two replicas."""

    def __init__(self, redis: Redis, *, wait: float = 2.0, clock: Callable[[], float] = time.time) -> None:
        self.redis = redis
        self.metrics = Metrics()
        self.authority = Authority(redis, clock=clock, patience=10.0)
        self.upstream = Upstream(AuthoritySessions(self.authority, self.metrics, clock=clock))
        self.accounts: dict[str, Account] = {}
        self.census = Census(clock)
        guard = RedisGuard(self.metrics, deadline=10.0)
        pipeline = Pipeline(redis, guard)
        self.store = SessionStore(redis, guard, pipeline)
        self.queue = CancelQueue(redis, guard, pipeline)
        issuers = {"authority": self.upstream}
        self.canceller = Canceller(
            self.queue, issuers, self.account_at, self.metrics, Audit(NOWHERE, clock=clock), self.census, clock=clock
        )
        self.mint = Mint(
            self.store,
            SharedLimits(redis, pipeline, self.metrics),
            self.queue,
            issuers,
            self.canceller,
            self.census,
            self.metrics,
            lease_seconds=25,
            clock=clock,
        )
        self.log_out = Logout(self.store, self.queue, self.canceller, wait=wait)
        self.sweeper = Sweeper(self.queue, self.canceller)
        self.revoke = Revoke(
            TenantStore(redis, guard),
            RevocationStore(redis, guard, pipeline),
            self.store,
            self.queue,
            lambda _tenant: DAY,
            clock=clock,
        )
        self.clock = clock

    def account(self, tenant: str = "acme") -> Account:
        self.metrics.know([tenant])
        return self.accounts.setdefault(tenant, Account(tenant, "authority"))

    def account_at(self, tenant: str, place: str) -> Account | None:
        account = self.account(tenant)
        return account if account.place == place else None

    def grant(self, tenant: str = "acme", limits: Limits | None = None, seconds: int = 600) -> Grant:
        body: CreateSession = {
            "user": f"{tenant}:alice",
            "workflow": {"id": "wf_1"},
            "expires_after": {"anchor": "created_at", "seconds": seconds},
        }
        return Grant(tenant, f"{tenant}:alice", body, self.account(tenant), limits or Limits())

    def login(
        self,
        login: str | None = "sid-1",
        *,
        tenant: str = "acme",
        subject: str = "alice",
        issued_at: float | None = None,
    ) -> Principal:
        now = self.clock()
        issued = now if issued_at is None else issued_at
        return Principal(tenant, subject, login, issued, now + 3600, claims={"sub": subject})

    async def minted(self, who: Principal, limits: Limits | None = None, seconds: int = 600) -> str:
        """Mint and return the session's id."""
        try:
            return (await self.mint(who, self.grant(who.tenant, limits, seconds))).minted.session.id
        finally:
            await self.canceller.finish(within=5.0)

    async def status(self, session_id: str) -> str:
        """The session's status at the authority, the only one that counts."""
        session = await self.authority.find(session_id)
        assert session is not None
        return str(session["status"])

    async def due(self) -> dict[str, float]:
        """Who is listed as having something to cancel, and when (ms): the next time alone of who is listed twice."""
        found: dict[str, float] = {}
        for number in range(SHARDS):
            entries: Any = await self.redis.zrange(due_shard(number), 0, -1, withscores=True)
            found |= {entry.decode(): at for entry, at in entries if not entry.endswith(b"+")}
        return found

    async def make_due(self, who: Principal) -> None:
        """Let the time pass until the user is due."""
        keys = UserKeys.of(who.tenant, who.subject)
        await self.redis.zadd(keys.due, {keys.tag: 0})

    async def queued(self, who: Principal) -> list[str]:
        return [each.id for each in await self.queue.queued(UserKeys.of(who.tenant, who.subject))]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"chatkit_mint_{name}_total", labels) or 0.0
