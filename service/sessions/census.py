"""How many sessions are live, counted by who minted and ended them here: added up over processes the sum is right.

A session may be minted in one process and cancelled in another, where the count then goes below zero. What a process
minted before it was restarted is not counted any more; ten minutes later nothing of it is live.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

GRAIN: Final = 5
"""Seconds to which ends are rounded up: what bounds the memory of a tenant's count."""


class Census:
    """Live sessions by tenant. *clock* is Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ending: dict[int, Counter[str]] = {}
        self._live: Counter[str] = Counter()

    def minted(self, tenant: str, expires_at: float) -> None:
        """Count one more until *expires_at* (Unix seconds)."""
        self._add(tenant, expires_at, 1)

    def ended(self, tenant: str, expires_at: float) -> None:
        """Count one less, if its time is not over anyway."""
        self._add(tenant, expires_at, -1)

    def live(self) -> Counter[str]:
        """Return how many are live now, by tenant."""
        now = self._clock()
        for end in [end for end in self._ending if end <= now]:
            ending = self._ending.pop(end)
            self._live.subtract(ending)
            for tenant in ending:
                if not self._live[tenant]:
                    del self._live[tenant]
        return self._live.copy()

    def _add(self, tenant: str, expires_at: float, count: int) -> None:
        if expires_at > self._clock():
            end = int(-(-expires_at // GRAIN) * GRAIN)
            self._ending.setdefault(end, Counter())[tenant] += count
            self._live[tenant] += count
