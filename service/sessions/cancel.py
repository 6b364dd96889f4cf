"""Cancel sessions upstream, side by side, and keep in the queue whatever upstream did not confirm.

Who queues something lists the user as due *before*; only who claimed that listing, or made it, takes it back. So
whatever happens to the process between any two lines here, what is queued will be tried again.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

import structlog

from service.errors import Refusal, UpstreamUnavailable
from service.observe.audit import Audit
from service.observe.logs import note, where
from service.observe.metrics import Metrics
from service.session import Account, Live, Session
from service.sessions.census import Census
from service.store.queue import LISTED_FOR, CancelQueue, Claim
from service.store.records import KEEP, Queued, UserKeys
from service.store.sessions import Admission
from service.upstream.issuer import SessionIssuer

PER_ACCOUNT: Final = 32
"""Cancels under way at one account from one process, for those who wait and for the sweeper each."""
PUT_AWAY_RETRY: Final = 0.2
"""Seconds before the records of an abandoned session are tried to be put right again; doubled each time."""
NOT_RECORDED: Final = "not_recorded"
"""The reason of a session whose secret never left; `record.lua` writes it too."""
SOONEST_RETRY: Final = 0.2
"""Seconds."""
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds between tries: doubled each time, with up to half of it taken off by chance."""

log = structlog.get_logger()


class _Outcome(Enum):
    CANCELLED = auto()
    OVER = auto()
    """Past its end, by any clock: it ended uncancelled."""
    FAILED = auto()
    NOT_TRIED = auto()


@dataclass(slots=True)
class CancelReport:
    """What became of the sessions: `cancelled` are confirmed or gone, `pending` will be tried again."""

    cancelled: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    pending: list[Queued] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    """As upstream answered, by id, where it did."""
    left: int = 0
    """Queued for the user after all this, by whomever."""
    minting: int = 0
    """Mints of the user under way: one that a logout overtook is queued when it is to be recorded."""


class Canceller:
    """Cancels queued sessions. *account_at* gives a tenant's account at the place where a session was issued."""

    def __init__(
        self,
        queue: CancelQueue,
        issuers: Mapping[str, SessionIssuer],
        account_at: Callable[[str, str], Account | None],
        metrics: Metrics,
        audit: Audit,
        census: Census,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audit = audit
        self._census = census
        self._queue = queue
        self._issuers = issuers
        self._account_at = account_at
        self._metrics = metrics
        self._clock = clock
        self._slots: dict[tuple[str, str, bool], asyncio.Semaphore] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def settle(
        self,
        keys: UserKeys,
        queued: Sequence[Queued],
        *,
        wait: float,
        sweeping: bool = False,
        listed: Claim | None = None,
    ) -> CancelReport:
        """Cancel *queued* within *wait* seconds and settle the queue; what remains stays due.

        *listed* is the caller's own listing of the user: taken back where nothing is left to do.
        """
        report = CancelReport()
        tasks = {asyncio.create_task(self._one(keys, each, report, sweeping=sweeping)): each for each in queued}
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=wait)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        failed = []
        for task, each in tasks.items():
            outcome = _Outcome.NOT_TRIED if task.cancelled() else task.result()
            if outcome is _Outcome.CANCELLED:
                report.cancelled.append(each.id)
            elif outcome is _Outcome.OVER:
                report.over.append(each.id)
            else:
                report.pending.append(each)
                if outcome is _Outcome.FAILED:
                    failed.append(each)
        report.left, report.minting = await self._queue.settle(keys, report.cancelled, report.over, failed)
        if report.pending and not sweeping:
            await self._queue.schedule(keys, delay=self.next_try(report.pending))
        elif listed and not (report.pending or report.left or report.minting):
            with suppress(Refusal):  # then a sweeper takes it back
                await self._queue.release(listed, delay=None)
        return report

    def next_try(self, pending: Sequence[Queued]) -> float:
        """Return when to try again, in seconds: backed off, but not past the end of what is still live."""
        now = self._clock()

        def wait(each: Queued) -> float:
            left = each.expires_at - now - 1
            return min(backoff(each.attempts), left) if left > 0 else backoff(each.attempts)

        return max(SOONEST_RETRY, min(wait(each) for each in pending))

    async def abandon(self, admission: Admission, live: Live, account: Account) -> None:
        """End a session that can't be recorded: its secret never leaves, and it shall not live on.

        Tried upstream first, since what stands in the way may be Redis. The records are put right in the background:
        nobody need wait for a Redis that doesn't answer.
        """
        cancelled = await self._cancelled_at_once(live, account)
        self._metrics.cancels.labels(NOT_RECORDED, "cancelled" if cancelled else "pending").inc()
        self._told(account.tenant, live, NOT_RECORDED, "cancelled" if cancelled else "pending")
        self._spawn(self._put_away(admission, live, account, cancelled=cancelled))

    async def _cancelled_at_once(self, live: Live, account: Account) -> bool:
        try:
            await self._issuers[account.kind].cancel(account, live.id)
        except Exception as error:  # noqa: BLE001  (whatever it is, the session must be queued)
            log.warning("abandoned_session_pending", session_id=live.id, tenant=account.tenant, error=where(error)[0])
            return False
        return True

    async def _put_away(self, admission: Admission, live: Live, account: Account, *, cancelled: bool) -> None:
        """Queue the session; or, cancelled already, forget it: the record may be made, and only its answer lost."""
        keys, delay, since = admission.keys, PUT_AWAY_RETRY, self._clock()
        while self._clock() < live.expires_at + KEEP:
            try:
                if not cancelled:
                    await self._queue.schedule(keys, delay=LISTED_FOR)
                    await self._queue.put(keys, live, reason=NOT_RECORDED, since=since)
                    await self._queue.schedule(keys, delay=0)
                else:
                    await self._queue.settle(keys, [live.id], [], [])
                await self._queue.forget(keys, live.id, admission.lease)
            except Refusal:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
                cancelled = cancelled or await self._cancelled_at_once(live, account)
            else:
                return
        if not cancelled:
            # Neither upstream nor Redis all its life long: it has ended by itself, and nobody held its secret.
            self._metrics.orphans.labels(self._metrics.tenant(keys.tenant)).inc()
            log.error("session_left_to_expire", session_id=live.id, tenant=keys.tenant)

    def begin(self, keys: UserKeys, queued: Sequence[Queued], listed: Claim | None = None) -> None:
        """Cancel what was just queued, without anyone waiting for it; *listed* as with `settle`."""
        if queued:
            self._spawn(self._in_background(keys, queued, listed))

    async def finish(self, *, within: float) -> None:
        """Wait for what nobody waits for, at most *within* seconds."""
        if self._running:
            await asyncio.wait(self._running, timeout=within)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _in_background(self, keys: UserKeys, queued: Sequence[Queued], listed: Claim | None) -> None:
        try:
            await self.settle(keys, queued, wait=LISTED_FOR / 2, listed=listed)
        except Refusal as refusal:
            log.warning("cancels_left_to_sweeper", tenant=keys.tenant, code=refusal.code)

    async def _one(self, keys: UserKeys, queued: Queued, report: CancelReport, *, sweeping: bool) -> _Outcome:
        if queued.expires_at + KEEP <= self._clock():
            self._metrics.cancels.labels(queued.reason, "expired").inc()
            self._metrics.expired_uncancelled.labels(self._metrics.tenant(keys.tenant)).inc()
            self._told(keys.tenant, queued.live, queued.reason, "expired")
            log.warning("session_expired_uncancelled", session_id=queued.id, tenant=keys.tenant)
            return _Outcome.OVER
        tried = False
        try:
            async with self._slot(keys.tenant, queued.live.place, sweeping=sweeping):
                tried = True
                session = await self._cancel(keys.tenant, queued.live)
        except asyncio.CancelledError:
            # Out of time. A try that began counts, so that the next one is backed off.
            return _Outcome.FAILED if tried else _Outcome.NOT_TRIED
        except Exception as error:  # noqa: BLE001  (one session's trouble must not keep the others from being settled)
            self._metrics.cancels.labels(queued.reason, "failed").inc()
            note(cancel_failed=(error.reason or error.code) if isinstance(error, Refusal) else where(error))
            return _Outcome.FAILED
        self._metrics.cancels.labels(queued.reason, "cancelled").inc()
        self._metrics.exposure.labels(queued.reason).observe(max(0.0, self._clock() - queued.since))
        if queued.reason != NOT_RECORDED:
            self._census.ended(keys.tenant, queued.expires_at)
        self._told(keys.tenant, queued.live, queued.reason, "cancelled")
        if session is not None:
            report.sessions[queued.id] = session
        return _Outcome.CANCELLED

    def _told(self, tenant: str, live: Live, reason: str, outcome: str) -> None:
        self._audit.tell("cancel", tenant=tenant, user=live.user, session=live.id, reason=reason, outcome=outcome)

    async def _cancel(self, tenant: str, live: Live) -> Session | None:
        account = self._account_at(tenant, live.place)
        if account is None:
            raise UpstreamUnavailable(f"tenant {tenant} has no account where the session was issued")
        return await self._issuers[account.kind].cancel(account, live.id)

    def _slot(self, tenant: str, place: str, *, sweeping: bool) -> asyncio.Semaphore:
        """One account's slots, and apart from them the sweeper's: nobody waits for another's dead upstream."""
        return self._slots.setdefault((tenant, place, sweeping), asyncio.Semaphore(PER_ACCOUNT))


def backoff(attempts: int) -> float:
    """Return how long to wait before the next try, in seconds."""
    longest = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(attempts, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  (spreads retries, guards nothing)
