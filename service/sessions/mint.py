"""Mint a session. The order of the steps is the design: no secret leaves that can't be revoked.

admit → create upstream → record → answer. A mint that was admitted runs to its end whatever its caller does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from service.contract import Path, dotted
from service.errors import Overloaded, RateLimited, Refusal, TooManyLiveSessions, UpstreamInvalid, UpstreamUnavailable
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.principal import Principal
from service.session import Grant, Live, Minted, Session
from service.sessions.cancel import Canceller
from service.sessions.census import Census
from service.store.limits import SharedLimits
from service.store.queue import LISTED_FOR, CancelQueue
from service.store.sessions import Admission, Crowded, SessionStore, rate_headers
from service.upstream.issuer import SessionIssuer

if TYPE_CHECKING:
    from service.observe.spans import Spans


class MintResult(NamedTuple):
    """What was minted, and the RateLimit headers of the limits that it counted against."""

    minted: Minted
    headers: Mapping[str, str]


class Mint:
    """The use case. *lease_seconds* is longer than any upstream call can take."""

    def __init__(
        self,
        store: SessionStore,
        limits: SharedLimits,
        queue: CancelQueue,
        issuers: Mapping[str, SessionIssuer],
        canceller: Canceller,
        census: Census,
        metrics: Metrics,
        *,
        lease_seconds: int,
        clock: Callable[[], float] = time.time,
        spans: "Spans | None" = None,
    ) -> None:
        self._spans = spans
        self._store = store
        self._limits = limits
        self._queue = queue
        self._issuers = issuers
        self._canceller = canceller
        self._census = census
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._running: set[asyncio.Task[Minted]] = set()
        self._under_way: Counter[str] = Counter()

    async def __call__(
        self, principal: Principal, grant: Grant, recorded: Callable[[Session], object] | None = None
    ) -> MintResult:
        """Mint for *principal* what *grant* allows; raise the refusal that stands in the way.

        *recorded* is told of the session also where the caller has left meanwhile.
        """
        label = self._metrics.tenant(grant.tenant)
        try:
            admission, outcome = await self._begin(principal, grant, recorded)
            minted = await outcome
        except Refusal as refusal:
            self._metrics.mints.labels(label, refusal.code).inc()
            raise
        self._metrics.counter(self._metrics.mints, label, "minted").inc()
        return MintResult(minted, rate_headers(admission.windows))

    async def _begin(
        self, principal: Principal, grant: Grant, recorded: Callable[[Session], object] | None
    ) -> tuple[Admission, asyncio.Future[Minted]]:
        """Take one of the tenant's places and admit; return what the mint under way, in a task of its own, comes to.

        The place is taken first and never waited for: a tenant whose upstream hangs takes up neither Redis nor its
        users' limits, and everybody else's mints don't notice.
        """
        tenant = grant.tenant
        if self._under_way[tenant] >= grant.account.max_concurrent:
            raise Overloaded(f"{grant.account.max_concurrent} mints of {tenant} are under way")
        self._under_way[tenant] += 1
        try:
            admitting = self._admit(principal, grant)
            admission = await (admitting if self._spans is None else self._spans.during("admit", admitting))
        except BaseException:  # also a caller that leaves
            self._leave(tenant)
            raise
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Minted] = loop.create_future()
        task = loop.create_task(self._issue(principal, grant, admission, recorded))
        self._running.add(task)
        task.add_done_callback(partial(self._ended, tenant, outcome))
        return admission, outcome

    def _ended(self, tenant: str, outcome: asyncio.Future[Minted], task: asyncio.Task[Minted]) -> None:
        """Give the place back, and tell the caller, if there still is one. It is one step where `shield` has three."""
        self._running.discard(task)
        self._leave(tenant)
        error = None if task.cancelled() else task.exception()
        if outcome.done():
            return
        if task.cancelled():
            outcome.cancel()
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    @property
    def under_way(self) -> int:
        """How many mints are under way."""
        return self._under_way.total()

    def _leave(self, tenant: str) -> None:
        self._under_way[tenant] -= 1
        if not self._under_way[tenant]:
            del self._under_way[tenant]

    async def _admit(self, principal: Principal, grant: Grant) -> Admission:
        try:
            admission = await self._store.admit(principal, grant.limits, lease_seconds=self._lease_seconds)
        except (RateLimited, TooManyLiveSessions) as refusal:
            limit = "mint" if isinstance(refusal, RateLimited) else "live"
            self._metrics.limit_hits.labels(self._metrics.tenant(grant.tenant), limit).inc()
            raise
        if grant.limits.tenant_mints:
            await self._admit_tenant(grant, admission)
        return admission

    async def _admit_tenant(self, grant: Grant, admission: Admission) -> None:
        """Count against the whole tenant's limits: after the user's own, so that nobody past those uses these up."""
        try:
            await self._limits.admit_tenant(grant.tenant, grant.limits.tenant_mints)
        except RateLimited:
            # Others used the tenant's limit up: that must not use up this user's own.
            await self._forgo(admission, refund=True)
            raise
        except Refusal:
            await self._forgo(admission)
            raise

    async def finish(self) -> None:
        """Wait for the mints that are under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _issue(
        self,
        principal: Principal,
        grant: Grant,
        admission: Admission,
        recorded: Callable[[Session], object] | None,
    ) -> Minted:
        def live(session_id: str, expires_at: int) -> Live:
            return Live(
                id=session_id,
                user=grant.user,
                workflow=grant.body["workflow"]["id"],
                login=admission.login,
                created_at=started,
                expires_at=expires_at,
                issued_at=principal.issued_at,
                place=grant.account.place,
            )

        started = self._clock()
        try:
            minted = await self._issuers[grant.account.kind].create(grant.account, grant.body)
        except Exception as error:
            if isinstance(error, UpstreamInvalid) and error.session_id:
                # Counted from now: rather too late than to give up cancelling while it still lives.
                unusable = live(error.session_id, int(self._clock()) + grant.seconds)
                await self._canceller.abandon(admission, unusable, grant.account)
            else:
                # Where upstream was not even asked, the user's limits shall not have been used up.
                await self._forgo(admission, refund=isinstance(error, UpstreamUnavailable) and not error.asked)
            raise
        new = live(minted.session.id, minted.session.expires_at)
        try:
            self._check_drift(grant, minted)
            recording = self._record(grant, admission, new)
            await (recording if self._spans is None else self._spans.during("record", recording))
            if recorded:
                recorded(minted.session)
        except Exception:
            await self._canceller.abandon(admission, new, grant.account)
            raise
        note(session_id=new.id)
        self._census.minted(grant.tenant, new.expires_at)
        return minted

    async def _record(self, grant: Grant, admission: Admission, new: Live) -> None:
        try:
            await self._store.record(admission, new, grant.limits)
        except Crowded:
            # Older sessions must give way. Their user is listed before they are queued.
            listed = await self._queue.schedule(admission.keys, delay=LISTED_FOR)
            evicted = await self._store.record(admission, new, grant.limits, listed=True)
            self._canceller.begin(admission.keys, evicted, listed)

    async def _forgo(self, admission: Admission, *, refund: bool = False) -> None:
        try:
            await self._store.forgo(admission, refund=refund)
        except Refusal as refusal:
            note(lease_left_to_lapse=refusal.code)

    def _check_drift(self, grant: Grant, minted: Minted) -> None:
        """Count what upstream resolved differently than policy asked; raise where the tenant wants no such session."""
        session = minted.session
        told: dict[str, Any] = {
            "workflow": session.workflow,
            "rate_limits": session.rate_limits,
            "chatkit_configuration": session.chatkit_configuration,
        }
        drifted = [dotted(path) for path in _differing(grant.body, told)]
        if not drifted:
            return
        note(drift=drifted)
        for field in drifted:
            # A state variable's name is the tenant's own, and there may be many.
            self._metrics.drift.labels(".".join(field.split(".")[:2])).inc()
        if grant.on_drift == "cancel":
            raise UpstreamInvalid(f"upstream resolved {', '.join(drifted)} differently than policy asked")


def _differing(asked: Mapping[str, Any], told: Mapping[str, Any], at: Path = ()) -> list[Path]:
    """Return where *told* has another value than *asked*; what it doesn't tell is no difference."""
    found: list[Path] = []
    for name, value in asked.items():
        other = told.get(name)
        if other is None or other == value:
            continue
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differing(value, other, (*at, name))
        else:
            found.append((*at, name))
    return found
