"""Rounds small enough to be played in every order: what takes part, and how orders are counted."""

from dataclasses import dataclass

from support.race_order import EveryOrder
from support.race_plan import Plan


@dataclass(frozen=True)
class Small:
    """A plan; whether orders of steps without a common key count as one; whether r1 also crashes, at every point."""

    plan: Plan
    orders: int
    """How many there are at least: fewer would mean that something is no longer a step."""
    reduce: bool = False
    crashes: bool = False

    def every(self) -> EveryOrder:
        return EveryOrder(reduce=self.reduce, crashes=self.crashes)


NO_SID = Plan(sid_a=None, sid_b=None, iat_b="later", sweeps=0, together=True)
ONE_LIVE = Plan(before_a=1, sweeps=0, together=True)

SHORT = {
    "mint, logout": Small(Plan(sweeps=0, together=True), 28),
    "mint, logout of one live": Small(ONE_LIVE, 71),
    "mint, logout everywhere": Small(Plan(scope="everywhere", iat_b="later", sweeps=0, together=True), 28),
    "mint from a clock ahead, service key": Small(
        Plan(scope="service", iat_a="ahead", iat_b="later", sweeps=0, together=True), 28
    ),
    "mint, logout without sid": Small(NO_SID, 28),
    "new login's mint, logout": Small(Plan(mints_a=0, mints_b=1, before_a=1, sweeps=0, together=True), 20),
    "mint, logout, crash": Small(ONE_LIVE, 30, reduce=True, crashes=True),
}
"""For every test run."""

LONG = SHORT | {
    "logout, sweep of older cancels, crash": Small(
        Plan(mints_a=0, before_a=1, backlog=True, sweeps=1, together=True), 100, reduce=True, crashes=True
    ),
    "mint, logout, failing cancel": Small(
        Plan(sid_a=None, sid_b=None, iat_b="later", sweeps=0, before_a=1, cancels_fail=1, together=True), 150
    ),
    "mint, logout, crash, unreduced": Small(ONE_LIVE, 250, crashes=True),
    "mint, logout, sweep, failing cancel, crash": Small(
        Plan(before_a=1, sweeps=1, cancels_fail=1, together=True), 100, reduce=True, crashes=True
    ),
    "mint, logout, sweep of older cancels": Small(Plan(backlog=True, sweeps=1, together=True), 130, reduce=True),
    "mint, logout, sweep of older cancels, crash": Small(
        Plan(backlog=True, sweeps=1, together=True), 1_500, reduce=True, crashes=True
    ),
}
"""For the long run."""
