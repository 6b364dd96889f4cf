"""The sweeper: in every replica, retry what is still to be cancelled until upstream confirms or it has expired."""

import asyncio
import random
from collections import Counter
from typing import Final

import structlog

from service.background import for_ever
from service.errors import Refusal
from service.observe.logs import where
from service.sessions.cancel import Canceller
from service.store.queue import CancelQueue, Claim

INTERVAL: Final = 0.5
"""Seconds between looks at the list of due users."""
BATCH: Final = 50
"""Users taken from a shard at once."""
PER_TENANT: Final = 500
"""Users of one tenant under way at once: past it, a dead upstream's cancels make room for the others'."""
WAIT: Final = 20.0
"""Seconds for one user's cancels."""
HIDDEN: Final = 30.0
"""Seconds that a claim hides its user from other sweepers: longer than `WAIT`, so that no claim is doubled."""

LEASED: Final = 5.0
"""Seconds until a user with nothing to cancel and a mint under way is looked at again: record may queue it."""

log = structlog.get_logger()


class Sweeper:
    """Runs until cancelled."""

    def __init__(self, queue: CancelQueue, canceller: Canceller) -> None:
        self._queue = queue
        self._canceller = canceller
        self._running: set[asyncio.Task[None]] = set()
        self._per_tenant: Counter[str] = Counter()

    async def run(self) -> None:
        """Sweep for ever. Redis being away is no reason to stop."""
        try:
            await for_ever(self._take, every=INTERVAL, failed="sweep_failed")
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def once(self) -> int:
        """Take what is due, see it through, and return how many users that were."""
        taken = await self._take()
        await asyncio.gather(*self._running)
        return taken

    async def _take(self) -> int:
        full = [tenant for tenant, users in self._per_tenant.items() if users >= PER_TENANT]
        claims = await self._queue.claim(hidden=HIDDEN, most=BATCH, full=full)
        # In the shards' order, the last ones' users would be those for whom a tenant has no room, time and again.
        random.shuffle(claims)
        for claim in claims:
            # Each on its own: a slow tenant's cancels keep nobody else's waiting.
            task = asyncio.create_task(self._see_through(claim))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(claims)

    async def _see_through(self, claim: Claim) -> None:
        tenant = claim.keys.tenant
        self._per_tenant[tenant] += 1
        try:
            if self._per_tenant[tenant] > PER_TENANT:
                await self._queue.release(claim, delay=INTERVAL)
                return
            queued = await self._queue.queued(claim.keys)
            report = await self._canceller.settle(claim.keys, queued, wait=WAIT, sweeping=True)
            if report.pending:
                await self._queue.release(claim, delay=self._canceller.next_try(report.pending))
            elif report.left:
                await self._queue.release(claim, delay=0.0)
            else:
                # Who queued more meanwhile listed the user anew: then the score has changed, and this does nothing.
                await self._queue.release(claim, delay=LEASED if report.minting else None, idle=True)
        except asyncio.CancelledError:
            await self._hand_back(claim)
            raise
        except Refusal as refusal:
            log.warning("sweep_failed", tenant=tenant, code=refusal.code, reason=refusal.reason)
        except Exception as error:  # noqa: BLE001  (a defect must not end the promise that cancels are retried)
            log.error("sweep_failed", tenant=tenant, error=where(error))
        finally:
            self._per_tenant[tenant] -= 1
            if not self._per_tenant[tenant]:
                del self._per_tenant[tenant]

    async def _hand_back(self, claim: Claim) -> None:
        """Let another replica go on at once: it would not see the user for as long as the claim hides them."""
        try:
            await self._queue.release(claim, delay=0.0)
        except Refusal as refusal:
            log.warning("claim_left_to_lapse", tenant=claim.keys.tenant, code=refusal.code)
