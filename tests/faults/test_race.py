"""No session of a logged-out login stays live and none of a new login is cancelled, whatever comes between what.

The long run is `tests/soak/race.py`.
"""

from pathlib import Path

import pytest

from support.race_runs import Report, by_chance, every_order
from support.race_small import SHORT, Small

SEED = 20_261_120


def fine(report: Report) -> bool:
    """Whether nothing failed; the first failure, with its seed and trace, is the message of the test's."""
    assert not report.failures, report.failures[0]
    return True


def test_hundreds_of_interleavings_by_chance(redis_socket: Path) -> None:
    report = by_chance(redis_socket, seed=SEED, rounds=150)
    assert fine(report)
    assert len(report.orders) == report.rounds == 150
    assert report.figures["mints refused"] > 100
    assert report.figures["sessions cancelled"] > 100
    assert report.figures["sessions active"] > 50


@pytest.mark.parametrize("small", SHORT.values(), ids=SHORT)
def test_every_order_of_a_few(redis_socket: Path, small: Small) -> None:
    every = small.every()
    assert fine(every_order(redis_socket, small.plan, every))
    assert every.played >= small.orders
