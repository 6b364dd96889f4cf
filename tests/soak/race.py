"""`python tests/soak/race.py`: interleavings of mint, logout, second login, expiry, crashes, by the thousand.

Exit code 1 when one of them leaves a session of a logged-out login live, or cancels one of a new login.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog

from service.store.private import find_redis_server
from support.race_runs import Report, by_chance, every_order
from support.race_small import LONG

EVERY = 10.0
"""Seconds between lines of progress."""


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round: to play one again")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--orders", action="store_true", help="also play small rounds in every order there is")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def play(socket: Path, asked: argparse.Namespace) -> Report:
    """Play the rounds, telling how far it is."""
    started = told = time.monotonic()

    def progress(report: Report) -> bool:
        nonlocal told
        now = time.monotonic()
        if now - told >= EVERY:
            told = now
            print(f"{report.rounds:,} rounds, {len(report.failures)} failures", file=sys.stderr, flush=True)
        return now - started < float(asked.seconds)

    return by_chance(socket, seed=asked.seed, rounds=asked.rounds, first=asked.first, progress=progress)


def play_every_order(socket: Path) -> tuple[dict[str, int], list[str]]:
    """Play the small rounds in every order; return how many orders each has, and what failed."""
    orders, failures = {}, []
    for name, small in LONG.items():
        every = small.every()
        report = every_order(socket, small.plan, every)
        orders[name] = every.played
        failures += [f"{name}, {failure}" for failure in report.failures]
        if every.played < small.orders:
            failures.append(f"{name}: {every.played} orders, there were {small.orders}")
        print(f"{name}: {every.played:,} orders", file=sys.stderr, flush=True)
    return orders, failures


def main() -> int:
    """Start a Redis, play, print."""
    asked = arguments()
    # What the service logs is what a round does to it on purpose, thousands of times.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as home:
        socket = Path(home) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", home, "--save", "", "--appendonly", "no"]
        with subprocess.Popen([str(find_redis_server()), *options], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                assert any("ready to accept connections" in line.lower() for line in server.stdout)
                orders, failures = play_every_order(socket) if asked.orders else ({}, [])
                report = play(socket, asked)
                report.failures += failures
            finally:
                server.terminate()
    if asked.json:
        print(json.dumps({"seed": asked.seed, "orders": orders} | report.as_dict()))
    else:
        print("\n\n".join(report.failures))
        print(f"{'seed':32}{asked.seed:>12}\n{report.text()}")
        print(f"{'every order of small rounds':32}{sum(orders.values()):>12,}")
        print(f"{'failures':32}{len(report.failures):>12}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
