"""`make soak`: kill the service at random moments, hundreds of times, and see that nothing is lost.

`python tests/soak/crash.py --kills 300 [--replicas 2] [--seed N] [--json]` prints the accounts. Exit code 1 where they
don't balance.
"""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from support.crash.accounts import Accounts
from support.crash.run import Plan, crash


def main() -> int:
    """Run as the arguments say, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Kill the service at random moments and balance the accounts.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--replicas", type=int, default=1, help="processes on one Redis, killed one at a time")
    parser.add_argument("--in-process", action="store_true", help="the service is its own session authority")
    parser.add_argument("--clients", type=int, default=12, help="requests under way at a time, about")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the load and of the moments")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    # Another replica answers while one starts again: without a pause, that would be nearly all that is tested.
    pause = 0.0 if given.replicas == 1 else 0.1
    plan = Plan(given.kills, given.replicas, given.clients, pause, given.seed, in_process=given.in_process)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that every process started is stopped

    def tell(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {text}\n")

    with tempfile.TemporaryDirectory(prefix="crash-") as home:
        accounts = asyncio.run(crash(plan, Path(home), tell=tell))
    took = round(time.monotonic() - started)
    where = "in process" if plan.in_process else "over HTTP"
    title = f"seed {plan.seed}, {plan.replicas} replica(s), authority {where}, {took} s"
    if given.json:
        figures = {"seed": plan.seed, "replicas": plan.replicas, "seconds": took, **accounts.counts}
        sys.stdout.write(json.dumps({"figures": figures, "failures": accounts.failures}, indent=2) + "\n")
    else:
        sys.stdout.write(table(accounts, title=title))
    return 1 if accounts.failures else 0


def table(accounts: Accounts, *, title: str) -> str:
    """Return the accounts for people."""
    rows = [f"{count:>9,}  {name}" for name, count in accounts.counts.items()]
    verdict = [f"FAILED: {each}" for each in accounts.failures] or ["The accounts balance."]
    return "\n".join([title, *rows, *verdict, ""])


if __name__ == "__main__":
    sys.exit(main())
