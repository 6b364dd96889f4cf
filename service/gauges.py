"""What is measured every few seconds, whether a scraper asks or not: a scrape then costs no call to Redis."""

import time
from collections.abc import Callable
from typing import Final

from service.background import for_ever
from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.reload import PolicyStore
from service.sessions.census import Census
from service.sessions.mint import Mint
from service.store.queue import CancelQueue
from service.upstream.openai import OpenAISessions

EVERY: Final = 5.0
"""Seconds."""


class Gauges:
    """Keeps the gauges up to date. *clock* is Unix seconds."""

    def __init__(
        self,
        metrics: Metrics,
        policies: PolicyStore,
        keys: KeyCache,
        census: Census,
        queue: CancelQueue,
        upstream: OpenAISessions,
        mint: Mint,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._policies = policies
        self._keys = keys
        self._census = census
        self._queue = queue
        self._upstream = upstream
        self._mint = mint
        self._clock = clock
        self._pending_since: float | None = None
        self._version: str | None = None

    async def run(self) -> None:
        """Measure for ever."""
        await for_ever(self.once, every=EVERY, failed="gauges_not_measured")

    async def once(self) -> None:
        """Measure now. What Redis doesn't tell goes on from what it told last: no alert falls silent with it."""
        self._metrics.count_lost_lines()
        self._policies_and_keys()
        self._metrics.set_live(self._census.live())
        self._metrics.mints_in_flight.set(self._mint.under_way)
        self._metrics.breakers_open.set(self._upstream.held_back())
        try:
            users, self._pending_since = await self._queue.pending()
            self._metrics.queue_users.set(users)
        finally:
            since = self._pending_since
            self._metrics.oldest_pending.set(0.0 if since is None else max(0.0, self._clock() - since))

    def _policies_and_keys(self) -> None:
        policies = self._policies.current
        if self._version not in (None, policies.version):
            self._metrics.policy_version.labels(self._version).set(0)
        self._version = policies.version
        self._metrics.policy_version.labels(policies.version).set(1)
        self._metrics.policy_tenants.set(len(policies.tenants))
        self._metrics.policy_failing.set(int(self._policies.failure is not None))
        self._metrics.keys_missing.set(len(self._keys.missing()))
        self._metrics.key_age.set(self._keys.oldest())
