"""Cancel sessions upstream, side by side, and keep in the queue whatever upstream did not confirm."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from service.errors import Refusal, UpstreamUnavailable
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.session import Account, Live, Session
from service.store.queue import CancelQueue, Claim
from service.store.records import Queued, UserKeys
from service.upstream.issuer import SessionIssuer

CONCURRENCY: Final = 64
"""Cancels under way in one process."""
MARGIN: Final = 2.0
"""Seconds that a claim outlasts the wait of the request that took it."""
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds between tries: doubled each time, with up to half of it taken off by chance."""

log = structlog.get_logger()


@dataclass(slots=True)
class CancelReport:
    """What became of the sessions: `cancelled` are confirmed or gone, `pending` will be tried again."""

    cancelled: list[str] = field(default_factory=list)
    pending: list[Queued] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    """As upstream answered, by id, where it did."""


class Canceller:
    """Cancels queued sessions. *account_of* gives a tenant's account as the policies stand now."""

    def __init__(
        self,
        queue: CancelQueue,
        issuers: Mapping[str, SessionIssuer],
        account_of: Callable[[str], Account | None],
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._issuers = issuers
        self._account_of = account_of
        self._metrics = metrics
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._running: set[asyncio.Task[None]] = set()

    async def settle(self, claim: Claim, queued: Sequence[Queued], *, wait: float) -> CancelReport:
        """Cancel *queued* within *wait* seconds and settle the queue; what remains stays due."""
        report = CancelReport()
        tasks = {asyncio.create_task(self._one(claim.keys, each)): each for each in queued}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=wait)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for task, each in tasks.items():
            if task.cancelled() or task.exception() is not None:
                report.pending.append(each)
                continue
            report.cancelled.append(each.id)
            session = task.result()
            if session is not None:
                report.sessions[each.id] = session
        await self._queue.settle(claim.keys, report.cancelled, report.pending)
        delay = min((backoff(each.attempts) for each in report.pending), default=None)
        await self._queue.release(claim, delay=delay)
        return report

    async def abandon(self, keys: UserKeys, live: Live, account: Account) -> None:
        """End a session that could not be recorded: its secret never leaves, and it shall not live on.

        Tried upstream first, since what stands in the way may be Redis; queued if upstream doesn't confirm.
        """
        try:
            await self._issuers[account.kind].cancel(account, live.id)
        except Refusal as refusal:
            self._metrics.cancels.labels("not_recorded", "pending").inc()
            log.warning(
                "abandoned_session_not_cancelled", session_id=live.id, tenant=keys.tenant, code=refusal.code
            )
        else:
            self._metrics.cancels.labels("not_recorded", "cancelled").inc()
            return
        try:
            await self._queue.schedule(keys, delay=0)
            await self._queue.put(keys, live, reason="not_recorded")
        except Refusal:
            # Neither upstream nor Redis: it ends by itself, and nobody holds its secret.
            self._metrics.orphans.labels(keys.tenant).inc()
            log.error("session_left_to_expire", session_id=live.id, tenant=keys.tenant, expires_at=live.expires_at)

    def begin(self, keys: UserKeys, session_ids: Sequence[str]) -> None:
        """Cancel sessions that are queued already, without anyone waiting for it."""
        if session_ids:
            task = asyncio.create_task(self._in_background(keys))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Wait for the cancels that nobody waits for."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _in_background(self, keys: UserKeys) -> None:
        try:
            claim = await self._queue.schedule(keys, delay=MARGIN * 5)
            await self.settle(claim, await self._queue.queued(keys), wait=MARGIN * 4)
        except Refusal as refusal:
            log.warning("cancels_left_to_sweeper", tenant=keys.tenant, code=refusal.code)

    async def _one(self, keys: UserKeys, queued: Queued) -> Session | None:
        """Cancel one; None where it is gone or past its end. Raises the refusal where it may be live."""
        if queued.expires_at <= self._clock():
            self._metrics.cancels.labels(queued.reason, "expired").inc()
            log.warning("session_expired_uncancelled", session_id=queued.id, tenant=keys.tenant)
            return None
        try:
            async with self._slots:
                session = await self._cancel(keys.tenant, queued.id)
        except Refusal as refusal:
            self._metrics.cancels.labels(queued.reason, "failed").inc()
            note(cancel_failed=refusal.reason or refusal.code)
            raise
        self._metrics.cancels.labels(queued.reason, "cancelled").inc()
        return session

    async def _cancel(self, tenant: str, session_id: str) -> Session | None:
        account = self._account_of(tenant)
        if account is None:
            raise UpstreamUnavailable(f"tenant {tenant} is not loaded: nobody knows its key")
        return await self._issuers[account.kind].cancel(account, session_id)


def backoff(attempts: int) -> float:
    """Return how long to wait before the next try, in seconds."""
    longest = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(attempts, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  (spreads retries, guards nothing)
