"""Runs of the race test: many rounds by chance, or every order of a small one."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import Refusal
from support.interleave import VirtualLoop
from support.race import Chooser, House, Round, RoundError
from support.race_order import ByChance, EveryOrder, Redundant
from support.race_plan import Plan, draw
from support.race_verdict import judge

MOST_FAILURES = 5
"""After which a run is given up: the first says most."""


@dataclass
class Report:
    """What a run came to. Each failure is a text that holds all that is needed to play it again."""

    rounds: int = 0
    steps: int = 0
    orders: set[int] = field(default_factory=set)
    figures: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def take(self, played: Round, label: str, broken: str | None) -> None:
        """Judge one round."""
        self.rounds += 1
        self.steps += len(played.steps)
        self.orders.add(hash((played.plan, *played.steps.trace)))
        if broken is not None:
            wrong = [broken]
        else:
            verdict = judge(played)
            self.figures.update(verdict.figures)
            wrong = verdict.wrong
        if wrong:
            self.failures.append("\n".join([label, *wrong, repr(played.plan), *(f"  {n}" for n in played.steps.trace)]))

    def text(self) -> str:
        """Return the figures, a line each."""
        figures = {"rounds": self.rounds, "different interleavings": len(self.orders), "steps": self.steps}
        return "\n".join(
            f"{name:32}{count:>12,}" for name, count in (figures | dict(sorted(self.figures.items()))).items()
        )

    def as_dict(self) -> dict[str, object]:
        """Return the figures for `--json`."""
        return {
            "rounds": self.rounds,
            "interleavings": len(self.orders),
            "steps": self.steps,
            **dict(sorted(self.figures.items())),
            "failures": self.failures,
        }


@contextmanager
def _runner() -> Iterator[asyncio.Runner]:
    def caught(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        # A mint that is refused when its caller has left is refused to nobody.
        if not isinstance(context.get("exception"), Refusal):
            loop.default_exception_handler(context)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(caught)
        yield runner


async def _play(house: House, plan: Plan, chooser: Chooser, report: Report, label: str, *, twice: bool) -> Round:
    played, broken = Round(house, plan, twice=twice, seed=label), None
    try:
        await played.play(chooser)
    except RoundError as error:
        broken = str(error)
    report.take(played, label, broken)
    return played


def by_chance(
    socket: Path,
    *,
    seed: int,
    rounds: int,
    first: int = 0,
    progress: Callable[[Report], bool] = lambda _: True,
) -> Report:
    """Play *rounds* rounds from number *first*; *progress* is asked after each whether to go on."""
    report = Report()

    async def run() -> None:
        house = await House.build(socket)
        try:
            for number in range(first, first + rounds):
                chance = random.Random(f"{seed} {number}")  # noqa: S311  (drawn, not guarded against)
                plan = draw(chance)
                label = f"seed {seed}, round {number}"
                await _play(house, plan, ByChance(plan, chance), report, label, twice=True)
                if len(report.failures) >= MOST_FAILURES or not progress(report):
                    break
        finally:
            await house.close()

    with _runner() as runner:
        runner.run(run())
    return report


def every_order(socket: Path, plan: Plan, orders: EveryOrder) -> Report:
    """Play *plan* in every order."""
    report = Report()

    async def run() -> None:
        house = await House.build(socket)
        try:
            while orders.next():
                try:
                    await _play(house, plan, orders, report, f"order {orders.played}", twice=False)
                except Redundant:
                    continue
                orders.played += 1
                if len(report.failures) >= MOST_FAILURES:
                    break
        finally:
            await house.close()

    with _runner() as runner:
        runner.run(run())
    return report
