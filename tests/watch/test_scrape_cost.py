"""What a scrape costs where there are more tenants than names for them in the metrics."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.observe.family import make_place
from service.observe.metrics import TENANTS, Metrics

MANY = 10_000
MOST_BYTES = 1_000_000
MOST_SECONDS = 0.2
MOST_TIMES = 5
"""What OpenMetrics and two workers may cost, in times of one process's text: 1.6 (65 ms) and 2.7 (110 ms) as a rule.

A slow hour makes all of them dearer.
"""
TRIES = 10
"""The best counts: whoever shares the machine can double what it takes."""
OUTCOMES = ("minted", "upstream_timeout", "rate_limited")


def mint_for_all(metrics: Metrics) -> None:
    """As though each tenant had minted, and some of its users had met a limit and a slow upstream."""
    names = [f"tenant-{number:05}-of-many" for number in range(MANY)]
    metrics.know(names)
    for name in names:
        label = metrics.tenant(name)
        for outcome in OUTCOMES:
            metrics.counter(metrics.mints, label, outcome).inc()
        metrics.limit_hits.labels(label, "mint").inc()
    metrics.set_live(dict.fromkeys(names, 1))


def judge(metrics: Metrics, accept: str, *, most: float = MOST_SECONDS) -> None:
    body, _ = metrics.exposition(accept)
    took = min(timed(metrics, accept) for _ in range(TRIES))
    assert body.count(b"chatkit_mint_sessions_live{") == TENANTS + 1
    assert b'tenant="other"' in body
    print(f"{len(body)} bytes in {took * 1000:.0f} ms")  # noqa: T201  (`pytest -s` tells)
    assert len(body) < MOST_BYTES
    assert took < most


def of_text(metrics: Metrics) -> float:
    """Seconds for the simplest form: what the others are judged beside."""
    return min(timed(metrics, "") for _ in range(TRIES))


def timed(metrics: Metrics, accept: str) -> float:
    """Seconds of our own: the machine may be busy with something else."""
    started = time.process_time()
    metrics.exposition(accept)
    return time.process_time() - started


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_of_one_process(accept: str) -> None:
    metrics = Metrics()
    mint_for_all(metrics)
    judge(metrics, accept, most=MOST_TIMES * of_text(metrics) if accept else MOST_SECONDS)


WORKER = """
import os, sys
from pathlib import Path
from service.observe.family import join
from service.observe.metrics import Metrics
from watch.test_scrape_cost import mint_for_all
join(Path(sys.argv[1]), sys.argv[2], os.environ)
mint_for_all(Metrics(Path(sys.argv[1])))
"""


def test_of_two_workers(tmp_path: Path) -> None:
    for place in ("parent", "0", "1"):
        make_place(tmp_path, place)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for place in ("0", "1"):
        subprocess.run([sys.executable, "-c", WORKER, str(tmp_path), place], env=environ, timeout=50, check=True)
    alone = Metrics()
    mint_for_all(alone)
    judge(Metrics(tmp_path), "", most=MOST_TIMES * of_text(alone))
