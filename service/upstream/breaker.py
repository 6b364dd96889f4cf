"""Circuit breakers: creates are held back from an upstream that has failed several times in a row.

One each upstream and key. Nobody waits for what is known to be dead, and what recovers is not trampled: a single
create tries, the others are held back until it has an answer. Cancels are never held back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

THRESHOLD: Final = 5
"""Failures in a row that open a breaker."""
FIRST, LAST = 5.0, 30.0
"""Seconds that one stays open: doubled each time that the single try fails."""
MOST: Final = 1024
"""Breakers remembered. Only those that failed last are; past it, those that failed longest ago are forgotten."""
AGAIN: Final = 1.0
"""Seconds after which to come back, told to those who came while the single try is under way."""

Name = tuple[str, bytes]
"""Base URL, and digest of the key."""


@dataclass(slots=True, eq=False)
class Trouble:
    """An upstream that failed last: how often in a row, and once that was too often, until when it is left alone."""

    failures: int = 0
    lasts: float = 0.0
    """Seconds of the latest opening; 0: closed."""
    until: float = 0.0
    probed: bool = False
    """Whether the single try is under way."""


class Breakers:
    """All breakers of a process; without an entry one is closed. *clock* is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._troubles: dict[Name, Trouble] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._troubles)

    def opened(self) -> int:
        """Return how many are open."""
        return sum(bool(trouble.lasts) for trouble in self._troubles.values())

    def held_back(self, name: Name) -> float | None:
        """Return in how many seconds to come back; None where a create may go ahead, after `enter`."""
        trouble = self._troubles.get(name)
        if trouble is None or not trouble.lasts:
            return None
        left = trouble.until - self._clock()
        if left > 0:
            return left
        return AGAIN if trouble.probed else None

    def enter(self, name: Name) -> Trouble | None:
        """Begin a call that is not held back; return what must be given back at its end: whether it is the try."""
        trouble = self._troubles.get(name)
        if trouble is None or not trouble.lasts:
            return None
        trouble.probed = True
        return trouble

    def succeeded(self, name: Name) -> None:
        """Close: upstream answered."""
        self._troubles.pop(name, None)

    def failed(self, name: Name, probe: Trouble | None) -> bool:
        """Count a failure; return whether that opened the breaker."""
        trouble = self._troubles.pop(name, None) or Trouble()
        self._troubles[name] = trouble  # last in the order: the first is forgotten first
        if len(self._troubles) > MOST:
            del self._troubles[next(iter(self._troubles))]
        if trouble.lasts and trouble is not probe:
            return False  # begun before it was opened: says nothing new
        trouble.failures += 1
        if trouble.failures < THRESHOLD:
            return False
        trouble.lasts = min(LAST, 2 * trouble.lasts or FIRST)
        trouble.until, trouble.probed = self._clock() + trouble.lasts, False
        return True

    def abandoned(self, probe: Trouble | None) -> None:
        """End a call that told nothing: the next one is the try."""
        if probe is not None:
            probe.probed = False
