"""Mint a session. The order of the steps is the design: no secret leaves that can't be revoked.

admit → create upstream → record → answer. A mint that was admitted runs to its end whatever its caller does.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.contract import dotted, flatten
from service.errors import Refusal, UpstreamInvalid
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.principal import Principal
from service.session import Grant, Live, Minted
from service.sessions.cancel import Canceller
from service.store.records import LEASE_MARK
from service.store.sessions import Admission, SessionStore, rate_headers
from service.upstream.issuer import SessionIssuer


@dataclass(frozen=True, slots=True)
class MintResult:
    """What was minted, and the RateLimit headers of the limits that it counted against."""

    minted: Minted
    headers: Mapping[str, str]


class Mint:
    """The use case. *lease_seconds* is longer than any upstream call can take."""

    def __init__(
        self,
        store: SessionStore,
        issuers: Mapping[str, SessionIssuer],
        canceller: Canceller,
        metrics: Metrics,
        *,
        lease_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuers = issuers
        self._canceller = canceller
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._running: set[asyncio.Task[Minted]] = set()

    async def __call__(self, principal: Principal, grant: Grant) -> MintResult:
        """Mint for *principal* what *grant* allows; raise the refusal that stands in the way."""
        try:
            admission = await self._store.admit(principal, grant.limits, lease_seconds=self._lease_seconds)
            task = asyncio.create_task(self._issue(principal, grant, admission))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            minted = await asyncio.shield(task)
        except Refusal as refusal:
            self._metrics.mints.labels(grant.tenant, refusal.code).inc()
            raise
        self._metrics.mints.labels(grant.tenant, "minted").inc()
        return MintResult(minted, rate_headers(admission.windows))

    async def finish(self) -> None:
        """Wait for the mints that are under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _issue(self, principal: Principal, grant: Grant, admission: Admission) -> Minted:
        started = self._clock()
        try:
            minted = await self._issuers[grant.account.kind].create(grant.account, grant.body)
            if minted.session.id.startswith(LEASE_MARK):
                raise UpstreamInvalid("the id can't be told from a lease")
        except Refusal:
            await self._forgo(admission)
            raise
        session = minted.session
        live = Live(
            id=session.id,
            user=grant.user,
            workflow=session.workflow["id"],
            login=principal.login,
            created_at=int(started),
            expires_at=session.expires_at,
        )
        try:
            evicted = await self._store.record(principal, admission, live, grant.limits)
        except Refusal:
            await self._canceller.abandon(admission.keys, live, grant.account)
            raise
        self._canceller.begin(admission.keys, evicted)
        self._report_drift(grant, minted)
        note(session_id=session.id)
        return minted

    async def _forgo(self, admission: Admission) -> None:
        try:
            await self._store.forgo(admission)
        except Refusal as refusal:
            note(lease_left_to_lapse=refusal.code)

    def _report_drift(self, grant: Grant, minted: Minted) -> None:
        """Count what upstream resolved differently than policy asked."""
        told = flatten(
            {
                "workflow": minted.session.workflow,
                "rate_limits": minted.session.rate_limits,
                "chatkit_configuration": minted.session.chatkit_configuration,
            }
        )
        drifted = [
            dotted(path)
            for path, asked in flatten(grant.body).items()
            if path in told and told[path] is not None and told[path] != asked
        ]
        for field in drifted:
            self._metrics.drift.labels(field).inc()
        if drifted:
            note(drift=drifted)
