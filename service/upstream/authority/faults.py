"""What may go wrong on purpose, so that a client's handling of it can be tried."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

PROBABILITIES: Final = ("rate_limited", "failing", "drop_after_create", "cancel_failing")
KNOWN: Final = ("latency", *PROBABILITIES)


@dataclass(frozen=True, slots=True)
class Faults:
    """Latency in seconds on both calls, and probabilities (0 to 1) of the rest, drawn from *chance*.

    `rate_limited` (429) and `failing` (500) befall a create before anything is created, `drop_after_create`
    loses the answer when the session exists, `cancel_failing` (500) comes before the cancel.
    Raises ValueError that names the fault whose value is impossible.
    """

    latency: float = 0.0
    rate_limited: float = 0.0
    failing: float = 0.0
    drop_after_create: float = 0.0
    cancel_failing: float = 0.0
    chance: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.latency < float("inf"):
            raise ValueError(f"latency={self.latency}: give seconds, 0 or more")
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a probability between 0 and 1")

    def hits(self, probability: float) -> bool:
        """Draw once: True with *probability*."""
        return self.chance.random() < probability


def parse_faults(texts: Iterable[str], *, chance: random.Random | None = None) -> Faults:
    """Return the faults of `name=value` texts; raise ValueError that says what is wrong and what is known."""
    given: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in KNOWN:
            raise ValueError(f"{text}: there is no fault {name!r}; known are {', '.join(KNOWN)}")
        if name in given:
            raise ValueError(f"{text}: {name} is given twice")
        try:
            given[name] = float(value)
        except ValueError:
            raise ValueError(f"{text}: {value!r} is not a number; write {name}=0.5") from None
    return Faults(**given, chance=chance or random.Random())  # noqa: S311  (drawn, not guarded against)
