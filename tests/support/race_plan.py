"""What one round of the race test consists of, drawn from a seed or written down."""

import random
from dataclasses import dataclass
from typing import Literal

Iat = Literal["older", "same second", "ahead", "later"]
IATS = {"older": -60.0, "same second": -0.4, "ahead": 5.0, "later": 20.0}
"""Seconds between the start of the round and the token's `iat`; issuers' clocks may run ahead up to the leeway."""


@dataclass(frozen=True)
class Plan:
    """One user with a login A that is logged out and another one, B. Numbers are how many; times are seconds."""

    sid_a: str | None = "sid-a"
    sid_b: str | None = "sid-b"
    iat_a: Iat = "same second"
    iat_b: Iat = "same second"
    scope: Literal["login", "everywhere", "service"] = "login"
    mints_a: int = 1
    mints_b: int = 0
    """Mints that race."""
    before_a: int = 0
    before_b: int = 0
    """Sessions that stand when the round begins."""
    b_waits: bool = False
    """Whether B begins only when A has been fenced: a token issued after the logout."""
    second_logout: Literal["", "a", "b"] = ""
    cancels_one: bool = False
    backlog: bool = False
    """Whether a cancel of an older session of A is pending and due when the round begins."""
    sweeps: int = 2
    most_live: int | None = None
    refuse: bool = False
    """Whether a mint past *most_live* is refused; else the oldest session gives way."""
    seconds: int = 600
    refused: int = 0
    lost: int = 0
    """Creates that fail with nothing created, and creates whose answer is lost."""
    cancels_fail: int = 0
    cancels_lost: int = 0
    crash_after: int | None = None
    """The step after which replica r1 is no more."""
    leaves_after: int | None = None
    """The step after which the first caller goes away."""
    ticks: float = 0.0
    """How often time passes instead of a step."""
    uneven: bool = False
    """Whether some actors are much slower than others."""
    together: bool = False
    """Whether all actors are in replica r1."""


def draw(chance: random.Random) -> Plan:
    """Draw one."""

    def sometimes(probability: float) -> bool:
        return chance.random() < probability

    sid_a, sid_b = ("sid-a" if sometimes(0.7) else None), ("sid-b" if sometimes(0.7) else None)
    scope: Literal["login", "everywhere", "service"] = chance.choice(["login", "login", "everywhere", "service"])
    alone = sid_a is not None and sid_b is not None and scope == "login"
    return Plan(
        sid_a=sid_a,
        sid_b=sid_b,
        iat_a=chance.choice(["older", "same second", "same second", "ahead"]),
        iat_b=chance.choice(["same second", "ahead", "later"]) if alone else chance.choice(["later", "later", "ahead"]),
        scope=scope,
        mints_a=chance.randint(1, 3),
        mints_b=chance.randint(0, 2),
        before_a=chance.randint(0, 2),
        before_b=chance.randint(0, 1) if alone else 0,
        b_waits=sometimes(0.3 if alone else 0.7),
        second_logout=chance.choice(["a", "b"]) if sometimes(0.2) else "",
        cancels_one=sometimes(0.25),
        backlog=sometimes(0.4),
        sweeps=chance.randint(1, 3),
        most_live=chance.randint(1, 2) if sometimes(0.35) else None,
        refuse=sometimes(0.3),
        seconds=30 if sometimes(0.1) else 600,
        refused=int(sometimes(0.1)),
        lost=int(sometimes(0.1)),
        cancels_fail=chance.randint(1, 4) if sometimes(0.4) else 0,
        cancels_lost=int(sometimes(0.1)),
        crash_after=chance.randint(0, 40) if sometimes(0.25) else None,
        leaves_after=chance.randint(0, 30) if sometimes(0.1) else None,
        ticks=chance.choice([0.0, 0.0, 0.02, 0.08]),
        uneven=sometimes(0.5),
        together=sometimes(0.3),
    )
