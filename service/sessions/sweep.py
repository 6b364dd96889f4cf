"""The sweeper: in every replica, retry what is still to be cancelled until upstream confirms or it has expired."""

import asyncio
from typing import Final

import structlog

from service.errors import Refusal
from service.observe.logs import where
from service.sessions.cancel import Canceller
from service.store.queue import CancelQueue, Claim

INTERVAL: Final = 0.5
"""Seconds between looks at the list of due users."""
BATCH: Final = 50
"""Users taken from a shard at once."""
WAIT: Final = 20.0
"""Seconds for one user's cancels."""
HIDDEN: Final = 30.0
"""Seconds that a claim hides its user from other sweepers: longer than `WAIT`, so that a claim isn't doubled."""

log = structlog.get_logger()


class Sweeper:
    """Runs until cancelled."""

    def __init__(self, queue: CancelQueue, canceller: Canceller) -> None:
        self._queue = queue
        self._canceller = canceller

    async def run(self) -> None:
        """Sweep for ever. Redis being away is no reason to stop."""
        while True:
            try:
                swept = await self.once()
            except Refusal as refusal:
                log.warning("sweep_failed", code=refusal.code, reason=refusal.reason)
                swept = 0
            except Exception as error:  # noqa: BLE001  (a defect must not end the promise that cancels are retried)
                log.error("sweep_failed", error=where(error))
                swept = 0
            if not swept:
                await asyncio.sleep(INTERVAL)

    async def once(self) -> int:
        """Take what is due, cancel it, and return how many users that were."""
        claims = await self._queue.claim(hidden=HIDDEN, most=BATCH)
        results = await asyncio.gather(*(self._one(claim) for claim in claims), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, Refusal):
                log.error("sweep_failed", error=where(result))
        return len(claims)

    async def _one(self, claim: Claim) -> None:
        await self._canceller.settle(claim, await self._queue.queued(claim.keys), wait=WAIT)
