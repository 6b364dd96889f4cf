"""`make bench`: what a mint costs, beside peers that do none of what we do, in one run. Prints ratios and their goals.

Everything is on: authentication, policy with three rules, two quotas and a live-session limit, Redis, fence, metrics,
logs. Users and tokens are distinct. The service has one core, everything else the other one. Rounds alternate between
who is compared, since the machine is not ours alone. Figures go to `--json FILE`, for `plot.py` and for people.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.fill import bytes_each, fill
from bench.parts import (
    EITHER,
    HERE,
    SERVICE_CORE,
    House,
    Load,
    Running,
    load,
    redis_server,
    running,
    service,
    upstream_at_once,
    upstream_that_takes,
)
from service.sessions.cancel import PER_ACCOUNT
from support.processes import ROOT, clean_environ, free_port

SESSIONS, CREATE = "/v1/chatkit/sessions", "/api/create-session"
ROUNDS = 3
SHARES = (0.5, 0.7, 0.9)
"""Of the rate that the service does at most: how many in flight, and how long do they take?"""
OURS = "chatkit-mint"
OWN = re.compile(r"(from|import) (service|chatkit_sessions)\b")


class Report:
    """Figures and goals, told as they come."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {"throughput": {}, "growth": {}, "goals": {}}

    def tell(self, text: str) -> None:
        print(text, flush=True)

    def goal(self, name: str, figure: float, goal: float, *, at_least: bool) -> None:
        """Tell whether a ratio reaches its goal."""
        reached = figure >= goal if at_least else figure <= goal
        self.figures["goals"][name] = {"figure": round(figure, 3), "goal": goal, "reached": reached}
        sign = "at least" if at_least else "at most"
        self.tell(f"  {'reached' if reached else 'MISSED ':<8} {name}: {figure:.3g} ({sign} {goal:g})")


@contextmanager
def floor(upstream: str) -> Iterator[Running]:
    """(d)"""
    environ = clean_environ(
        OPENAI_BASE_URL=upstream, OPENAI_API_KEY="sk-bench", WORKFLOW_ID="wf_bench", PYTHONPATH=str(ROOT)
    )
    port = free_port()
    command = ["-m", "uvicorn", "floor:app", "--port", str(port), "--no-access-log", "--app-dir", str(HERE / "peers")]
    with running([sys.executable, *command], SERVICE_CORE, f"http://127.0.0.1:{port}", environ=environ) as it:
        yield it


@contextmanager
def peer(command: list[str], upstream: str) -> Iterator[Running]:
    """(a), (b) or (c)."""
    port = free_port()
    environ = clean_environ(
        OPENAI_BASE_URL=upstream, OPENAI_API_KEY="sk-bench", WORKFLOW_ID="wf_bench", HOST="127.0.0.1", PORT=str(port)
    )
    with running(command, SERVICE_CORE, f"http://127.0.0.1:{port}", environ=environ) as it:
        yield it


def peers() -> dict[str, list[str]]:
    """Those that are installed, by what they are called."""
    python, express = ROOT / ".venv-bench/bin/python", HERE / "peers/express"
    found = {}
    if python.exists():
        found["(a) FastAPI, a client a request"] = [str(python), str(HERE / "peers/starter.py")]
        found["(b) FastAPI + openai"] = [str(python), str(HERE / "peers/fastapi_openai.py")]
    if (express / "node_modules/.installed").exists():
        found["(c) Express + openai"] = ["node", str(express / "server.mjs")]
    return found


def measure(server: Running, path: str, seconds: float, tokens: list[str] | None = None, **options: Any) -> Load:
    """Load a server for so long, and raise where anything but 2xx came back."""
    seen = load(server.url + path, seconds=seconds, tokens=tokens or (), **options)
    if seen.errors:
        raise RuntimeError(f"{seen.errors} errors from {server.url}{path}")
    return seen


def throughput(report: Report, seconds: float) -> None:
    """Everybody at 64 connections, an upstream that answers at once."""
    rates: dict[str, list[float]] = {}
    cpu: dict[str, float] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_at_once()), stack.enter_context(redis_server())
        houses = {alg: House(home / alg, upstream, alg) for alg in ("ES256", "RS256")}
        tokens = {"ES256": houses["ES256"].tokens(20_000), "RS256": houses["RS256"].tokens(8_000)}

        def once(name: str, start: Callable[[], Any], path: str, words: list[str] | None = None) -> None:
            with start() as server:
                measure(server, path, 2, words)
                before = server.cpu()
                seen = measure(server, path, seconds, words)
                cpu[name] = (server.cpu() - before) / (seen.rate * seconds) * 1e6
            rates.setdefault(name, []).append(seen.rate)
            report.tell(
                f"  {name:<32} {seen.rate:8,.0f}/s  p50 {seen.p50 * 1000:6.1f} ms  {cpu[name]:7,.0f} µs of CPU each"
            )

        for _ in range(ROUNDS):
            once("(d) pass-through", partial(floor, upstream), CREATE)
            for alg, house in houses.items():
                once(f"{OURS}, {alg}", partial(service, house, redis), SESSIONS, tokens[alg])
        for name, command in peers().items():
            # (a) is slow: a longer look.
            for _ in range(ROUNDS):
                once(name, partial(peer, command, upstream), CREATE)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    report.figures["throughput"], report.figures["cpu_us"] = middle, cpu
    # Tokens of both kinds, half each.
    ours = 2 / sum(1 / middle[f"{OURS}, {alg}"] for alg in houses)
    report.tell(f"  an even mix of both is {ours:,.0f}/s")
    for name, goal in (("(a)", 40), ("(b)", 3), ("(c)", 1.25), ("(d)", 0.45)):
        for found in (each for each in middle if each.startswith(name)):
            report.goal(f"throughput over {found}", ours / middle[found], goal, at_least=True)


def latency(report: Report, seconds: float) -> None:
    """What one connection waits longer than for the upstream itself."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_at_once()), stack.enter_context(redis_server())
        house = House(home, upstream, "ES256")
        tokens = house.tokens(20_000)
        bare = stack.enter_context(floor(upstream))
        ours = stack.enter_context(service(house, redis))
        rounds = [
            {
                "direct": load(f"{upstream}/chatkit/sessions", seconds=seconds, connections=1),
                "d": measure(bare, CREATE, seconds, connections=1),
                "ours": measure(ours, SESSIONS, seconds, tokens, connections=1),
            }
            for _ in range(ROUNDS)
        ]
    for quantile in ("p50", "p99"):
        middle = {name: statistics.median(getattr(each[name], quantile) for each in rounds) for name in rounds[0]}
        added = {name: middle[name] - middle["direct"] for name in ("d", "ours")}
        report.tell(f"  added at {quantile}: {added['ours'] * 1e6:,.0f} µs; (d) adds {added['d'] * 1e6:,.0f} µs")
        report.goal(f"added latency over (d)'s, {quantile}", added["ours"] / added["d"], 2.2, at_least=False)


def in_flight(report: Report, seconds: float) -> None:
    """2,000 mints at once, an upstream that takes 300 ms; then 2,000 people who come at rates that one core carries."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_that_takes(0.3)), stack.enter_context(redis_server())
        house = House(home, upstream, "ES256", max_concurrent=4096)
        tokens = house.tokens(20_000)
        ours = stack.enter_context(service(house, redis, CHATKIT_MINT_REDIS_TIMEOUT="5"))
        idle = ours.memory()
        seen = load(ours.url + SESSIONS, seconds=seconds, connections=2_000, tokens=tokens)
        more = (ours.memory() - idle) / 2**20
        carried = {}
        for share in SHARES:
            think = 2_000 / (share * seen.rate) - 0.3
            # The upstream shares its core with wrk: what it takes itself is seen under the same load.
            carried[share] = [
                load(url, seconds=2 * seconds, connections=2_000, tokens=tokens, think=think)
                for url in (f"{upstream}/chatkit/sessions", ours.url + SESSIONS)
            ]
    report.tell(
        f"  {seen.rate:,.0f}/s, p50 {seen.p50 * 1000:.0f} ms, p99 {seen.p99 * 1000:.0f} ms, {seen.errors} errors"
    )
    report.goal("2,000 in flight: errors", seen.errors, 0, at_least=False)
    report.goal("2,000 in flight: p50 over upstream's 300 ms", seen.p50 / 0.3, 1.15, at_least=False)
    report.goal("2,000 in flight: MB more than idle", more, 150, at_least=False)
    for share, (direct, each) in carried.items():
        report.tell(
            f"  at {share:.0%} of that rate: {each.rate:,.0f}/s, {each.rate * each.p50:,.0f} in flight, p50 "
            f"{each.p50 / direct.p50:.2f} and p99 {each.p99 / direct.p99:.2f} times upstream's, {each.errors} errors"
        )
    report.figures["carried"] = {
        f"{share:g}": [each.rate, each.p50 / direct.p50, each.errors] for share, (direct, each) in carried.items()
    }


def workers(report: Report, seconds: float) -> None:
    """CPU for a mint in two processes over that in one, with 64 connections for each process.

    The whole family's CPU counts, the parent's too. Nothing is pinned: on one core, two processes would take turns in
    its caches, which is not what anybody runs two for.
    """
    spent: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_at_once()), stack.enter_context(redis_server())
        house = House(home, upstream, "ES256")
        tokens = house.tokens(20_000)
        servers = {
            # Where more want to run than there are cores, a second of waiting says nothing about Redis.
            count: stack.enter_context(
                service(house, redis, core=EITHER, CHATKIT_MINT_WORKERS=str(count), CHATKIT_MINT_REDIS_TIMEOUT="5")
            )
            for count in spent
        }
        for count in _in_turn(spent):
            server = servers[count]
            measure(server, SESSIONS, 2, tokens, connections=64 * count)
            shares, before = server.shares(), server.cpu()
            seen = measure(server, SESSIONS, seconds, tokens, connections=64 * count)
            spent[count].append((server.cpu() - before) / (seen.rate * seconds) * 1e6)
            each = [later - sooner for sooner, later in zip(shares, server.shares(), strict=True)]
            parts = " + ".join(f"{share / sum(each):.0%}" for share in each)
            report.tell(f"  {count} process(es): {seen.rate:8,.0f}/s  {spent[count][-1]:6,.0f} µs of CPU each  {parts}")
    one, two = (statistics.median(found) for found in spent.values())
    report.figures["workers_cpu_us"] = {"1": one, "2": two}
    report.goal("CPU for a mint in two processes, over one", two / one, 1.1, at_least=False)


def growth(report: Report, seconds: float) -> None:
    """Does a mint cost more where there are many tenants, or many live sessions?"""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(upstream_at_once())
        few, many = (
            House(home / "few", upstream, "ES256", tenants=10),
            House(home / "many", upstream, "ES256", tenants=10_000),
        )
        redis = stack.enter_context(redis_server())
        rates: dict[int, list[float]] = {10: [], 10_000: []}
        tokens = {10: few.tokens(20_000), 10_000: many.tokens(20_000)}
        servers = {
            10: stack.enter_context(service(few, redis)),
            10_000: stack.enter_context(service(many, redis)),
        }
        for count in _in_turn(servers):
            measure(servers[count], SESSIONS, 2, tokens[count])
            rates[count].append(measure(servers[count], SESSIONS, seconds, tokens[count]).rate)
    _grown(report, "tenants", rates)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(upstream_at_once())
        house = House(home, upstream, "ES256")
        tokens = {0: house.tokens(20_000)}
        rates = {}
        stores = {count: stack.enter_context(redis_server()) for count in (1_000, 1_000_000)}
        for count, url in stores.items():
            report.tell(f"  filling Redis with {count:,} live sessions")
            fill(url, count)
        for count in _in_turn(stores):
            with service(house, stores[count]) as server:
                measure(server, SESSIONS, 2, tokens[0])
                rates.setdefault(count, []).append(measure(server, SESSIONS, seconds, tokens[0]).rate)
    _grown(report, "live", rates)


def _in_turn(what: Iterable[int]) -> Iterator[int]:
    """Each twice as often as a part has rounds, first and last by turns: a machine that gets slower favours neither."""
    for number in range(2 * ROUNDS):
        yield from sorted(what, reverse=bool(number % 2))


def _grown(report: Report, name: str, rates: dict[int, list[float]]) -> None:
    middle = [(count, statistics.median(found)) for count, found in sorted(rates.items())]
    report.figures["growth"][name] = middle
    (least, before), (most, after) = middle[0], middle[-1]
    report.goal(f"throughput with {most:,} {name} over that with {least:,}", after / before, 0.95, at_least=True)


def memory(report: Report, _seconds: float) -> None:
    """Bytes of Redis for what is live and for who has logged out."""
    with redis_server() as url:
        found = bytes_each(url)
    for what, goal in (("a live session", 450), ("a logged-out login", 200)):
        report.goal(f"bytes of Redis for {what}", found[what], goal, at_least=False)


def imports_of_dependencies() -> str:
    """Return the import statements of the modules that `serve` loads, as far as they are of other packages.

    Their names alone would not do: `import pydantic` or `import cel_expr_python` loads little of what is used.
    """
    code = "import service.cli, sys; print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = [Path(each) for each in loaded if Path(each).is_relative_to(ROOT) and "site-packages" not in each]
    found = {
        ast.unparse(statement)
        for path in ours
        for statement in ast.parse(path.read_text()).body  # those at the top: what is deeper is for some other case
        if isinstance(statement, ast.Import | ast.ImportFrom) and not OWN.match(ast.unparse(statement))
    }
    return "\n".join(sorted(found))


def starting(report: Report, _seconds: float) -> None:
    """From the command to the first answer, over importing its dependencies alone."""
    imports = imports_of_dependencies()
    alone, whole = [], []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(redis_server())
        house = House(home, "http://127.0.0.1:1/v1", "ES256")
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run(["taskset", "-c", SERVICE_CORE, sys.executable, "-c", imports], check=True)
            alone.append(time.perf_counter() - started)
            started = time.perf_counter()
            with service(house, redis) as server:
                httpx2.get(f"{server.url}/", trust_env=False, timeout=30)  # waits for who answers, not for the socket
                whole.append(time.perf_counter() - started)
    report.tell(f"  ready after {statistics.median(whole):.2f} s; imports alone {statistics.median(alone):.2f} s")
    report.goal("ready, over imports alone", statistics.median(whole) / statistics.median(alone), 1.5, at_least=False)


def cancelling(report: Report, _seconds: float) -> None:
    """A tenant of 10,000 live sessions is revoked; its upstream takes 100 ms a call."""
    key, took = "an-admin-key-for-the-benchmark-alone", 0.1
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_that_takes(took)), stack.enter_context(redis_server())
        house = House(home, upstream, "ES256", max_concurrent=4096)
        port = free_port()
        ours = stack.enter_context(service(house, redis, CHATKIT_MINT_ADMIN_KEY=key, CHATKIT_MINT_OPS_PORT=str(port)))
        measure(ours, SESSIONS, 15, house.tokens(50_000), connections=200)
        client = stack.enter_context(
            httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, trust_env=False
            )
        )
        path, started = "/admin/tenants/tenant-0/revoke", time.perf_counter()
        told = client.post(path, json={"rate": 10_000}).json()
        while told["state"] != "done":
            time.sleep(0.25)
            told = client.get(path).json()
        seconds = time.perf_counter() - started
    ideal = told["sessions"] * took / PER_ACCOUNT
    report.tell(f"  {told['cancelled']:,} of {told['sessions']:,} cancelled in {seconds:.1f} s; {PER_ACCOUNT} at once")
    report.goal(
        "cancelling a tenant, over sessions by upstream time by concurrency", seconds / ideal, 1.3, at_least=False
    )


PARTS = {
    "throughput": throughput,
    "latency": latency,
    "in-flight": in_flight,
    "workers": workers,
    "growth": growth,
    "cancel": cancelling,
    "memory": memory,
    "start": starting,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS], help="default: all")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement")
    parser.add_argument("--json", type=Path, default=ROOT / "var/bench/results.json")
    options = parser.parse_args()
    report = Report()
    if os.cpu_count() == 1:
        report.tell("one core alone: the load generator and the service are in each other's way")
    for name in options.only or PARTS:
        report.tell(f"{name}:")
        PARTS[name](report, options.seconds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.figures, indent=2))
    missed = [name for name, goal in report.figures["goals"].items() if not goal["reached"]]
    report.tell(f"{len(missed)} of {len(report.figures['goals'])} goals missed; the figures are in {options.json}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
