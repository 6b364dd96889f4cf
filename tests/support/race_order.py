"""In which order the steps of a round are taken: by chance, or in every order there is."""

import random
from dataclasses import dataclass, field

from support.interleave import EVERYTHING, Gate
from support.race_plan import Plan

TICKS = [0.001, 0.3, 1.0, 2.5, 2.5, 11.0, 31.0]
"""Seconds that may pass: a moment; past Redis's deadline; past upstream's; past a sweeper's claim."""


class ByChance:
    """Any gate, time and again some time instead, and once a crash, as the plan says."""

    def __init__(self, plan: Plan, chance: random.Random) -> None:
        self._plan, self._chance = plan, chance
        self._weights: dict[str, float] = {}

    def choose(self, gates: list[Gate], step: int) -> Gate | float | str:
        if step == self._plan.crash_after:
            return "r1"
        if step == self._plan.leaves_after:
            return "leave"
        if self._chance.random() < self._plan.ticks:
            return self._chance.choice(TICKS)
        if not self._plan.uneven:
            return self._chance.choice(gates)
        for gate in gates:
            self._weights.setdefault(gate.actor, 10 ** self._chance.uniform(-2, 0))
        return self._chance.choices(gates, [self._weights[gate.actor] for gate in gates])[0]


class Redundant(Exception):  # noqa: N818
    """All that could come next leads to orders that differ from played ones in no way that anybody could tell."""


@dataclass
class _Branch:
    """A point where there was a choice. *asleep*: steps whose orders were played from elsewhere."""

    gates: dict[str, frozenset[str]]
    asleep: dict[str, frozenset[str]]
    chosen: str


@dataclass
class EveryOrder:
    """Goes through all orders of a round's steps, depth first, one order a round: `while orders.next(): play`.

    With *reduce*, orders that differ only in neighbouring steps that touch no common key count as one (sleep sets).
    *crashes*: a crash of r1 at every point is a step as well.
    """

    reduce: bool = False
    crashes: bool = False
    played: int = 0
    redundant: int = 0
    _path: list[_Branch] = field(default_factory=list)
    _depth: int = 0

    def next(self) -> bool:
        """Turn to the next order; False when there is none."""
        if self._depth == 0 and not self._path:
            return True
        while self._path:
            branch = self._path[-1]
            branch.asleep[branch.chosen] = branch.gates[branch.chosen]
            rest = [name for name in branch.gates if name not in branch.asleep]
            if rest:
                branch.chosen = rest[0]
                self._depth = 0
                return True
            self._path.pop()
        return False

    def choose(self, gates: list[Gate], _step: int) -> Gate | float | str:
        by_name = {gate.name: gate for gate in gates}
        if len(by_name) < len(gates):
            raise AssertionError(f"two steps of one name: {sorted(gate.name for gate in gates)}")
        if self._depth == len(self._path):
            self._path.append(self._new({name: gate.keys for name, gate in by_name.items()}))
        branch = self._path[self._depth]
        self._depth += 1
        return "r1" if branch.chosen == "crash" else by_name[branch.chosen]

    def _new(self, gates: dict[str, frozenset[str]]) -> _Branch:
        asleep: dict[str, frozenset[str]] = {}
        if self._path:
            last = self._path[-1]
            touched = last.gates[last.chosen]
            asleep = {name: keys for name, keys in last.asleep.items() if self._commute(keys, touched)}
        if self.crashes and not any(branch.chosen == "crash" for branch in self._path):
            gates = gates | {"crash": EVERYTHING}
        rest = [name for name in gates if name not in asleep]
        if not rest:
            self.redundant += 1
            raise Redundant
        return _Branch(gates, asleep, rest[0])

    def _commute(self, some: frozenset[str], others: frozenset[str]) -> bool:
        return self.reduce and EVERYTHING not in (some, others) and not some & others
