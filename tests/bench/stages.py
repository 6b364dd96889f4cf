"""`make bench-stages`: where a mint's CPU goes, by stage, and how much of the processor's cache it passes through.

By stage: py-spy looks at the service 200 times a second under a load of 64 connections. A sample belongs to the stage
of its innermost frame that has one. Shares, since times are the machine's.

By counting: valgrind's callgrind runs the service and (d), and counts instructions and the lines of 64 bytes that a
second cache of 512 KiB doesn't hold. What an idle service does meanwhile is taken off. Instructions are the same
whatever else the machine does; this takes some five minutes, and is left out where there is no valgrind.
"""

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import parts as bench_parts
from bench.mint import CREATE, SESSIONS, floor, measure
from bench.parts import OTHER_CORE, House, Running, redis_server, service, upstream_at_once
from service.transport import make_transport
from support.processes import ROOT

SPY: Final = ROOT / ".venv-bench/bin/py-spy"
RATE: Final = 200
STAGES: Final = (
    ("log, audit, metrics", r"service/observe/|structlog/|prometheus_client/|CanonicalLine\._(account|tell|count)"),
    ("authenticate", r"service/identity/|service/http/credentials|jwt/|cryptography/"),
    ("decide", r"service/policy/|pydantic/|service/contract"),
    ("Redis", r"service/store/|redis/|asyncio/streams"),
    ("upstream: aiohttp and its adapter", r"aiohttp/|httpx_aiohttp/|httpx2/|service/transport|yarl/"),
    ("upstream: the call around it, its answer", r"service/upstream/"),
    ("the order of things", r"service/sessions/"),
    ("HTTP: uvicorn, Starlette, routes", r"uvicorn/|starlette/|service/http/|service/connection|service/server"),
    ("the event loop and the kernel", r"asyncio/|uvloop/"),
)
"""Names, and what the frames of each match; the first that fits."""
WARM, COUNTED = 100, 320
CONNECTIONS: Final = (1, 32)
CACHES: Final = ("--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=524288,8,64")
READY: Final = 120.0
"""Seconds: the service starts fifty times slower."""


def by_stage(seconds: int) -> dict[str, float]:
    """Return each stage's share of the event loop's thread, under load."""
    samples: Counter[str] = Counter()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_at_once()), stack.enter_context(redis_server())
        house = House(home / "house", upstream, "ES256")
        tokens, found = house.tokens(20_000), home / "samples"
        ours = stack.enter_context(service(house, redis))
        measure(ours, SESSIONS, 2, tokens)
        options = ["-r", str(RATE), "-d", str(seconds), "-f", "raw", "-o", str(found), "-p", str(ours.popen.pid)]
        spy = subprocess.Popen(
            ["taskset", "-c", OTHER_CORE, str(SPY), "record", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        measure(ours, SESSIONS, seconds + 1, tokens)
        spy.wait(30)
        for line in found.read_text().splitlines():
            frames, _, count = line.rpartition(" ")
            if "run_until_stopped" in frames:  # not the thread that writes the log
                samples[_stage(frames.split(";"))] += int(count)
    return {name: samples[name] / samples.total() for name, _ in samples.most_common()}


def _stage(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in STAGES:
            if re.search(pattern, frame):
                return name
    return "the event loop and the kernel"


@contextmanager
def _under_callgrind(found: Path) -> Iterator[None]:
    """Start what is started in here, and is to be measured, under callgrind."""
    started = subprocess.Popen

    def start(command: list[str], *arguments: Any, **options: Any) -> Any:
        if "serve" in command or "uvicorn" in command:
            at = command.index(sys.executable)
            counter = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={found}", *CACHES]
            command = [*command[:at], *counter, *command[at:]]
        return started(command, *arguments, **options)

    subprocess.Popen = start  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        subprocess.Popen = started  # type: ignore[misc]


def counted(whose: str, connections: int) -> dict[str, float]:
    """Return instructions and lines missed for a mint of the service ("ours") or of (d)."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, redis = stack.enter_context(upstream_at_once()), stack.enter_context(redis_server())
        house, found = House(home / "house", upstream, "ES256"), home / "found"
        tokens = house.tokens(WARM + COUNTED)
        stack.enter_context(_under_callgrind(found))
        server = stack.enter_context(
            service(house, redis, CHATKIT_MINT_REDIS_TIMEOUT="5") if whose == "ours" else floor(upstream)
        )
        url = server.url + (SESSIONS if whose == "ours" else CREATE)
        asyncio.run(_mint(url, tokens[:WARM], connections))
        _tell(server, "-i", "on")
        started = time.monotonic()
        asyncio.run(_mint(url, tokens[WARM:], connections))
        took = time.monotonic() - started
        _tell(server, "-d")
        time.sleep(took)
        _tell(server, "-d")
        busy, idle = (_totals(Path(f"{found}.{part}")) for part in (1, 2))
    return {name: (busy[name] - idle[name]) / COUNTED for name in busy}


def _tell(server: Running, *words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(server.popen.pid)], check=True, capture_output=True, timeout=60)


async def _mint(url: str, tokens: Sequence[str], connections: int) -> None:
    left, transport = iter(tokens), make_transport()

    async def one() -> None:
        for token in left:
            headers = {"authorization": f"Bearer {token}"}
            answer = await transport.handle_async_request(httpx2.Request("POST", url, headers=headers))
            await answer.aread()
            await answer.aclose()
            if not answer.is_success:
                raise RuntimeError(f"{answer.status_code} from {url}")

    await asyncio.gather(*(one() for _ in range(connections)))
    await transport.aclose()


def _totals(found: Path) -> dict[str, float]:
    """Return the totals of a callgrind file: the costs of its lines, those of calls left out."""
    events: list[str] = []
    totals: defaultdict[str, float] = defaultdict(float)
    called = False
    with found.open() as lines:
        for line in lines:
            if line.startswith("events:"):
                events = line.split()[1:]
            elif line.startswith("calls="):
                called = True  # what follows is the callee's, which has lines of its own
            elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
                if not called:
                    for event, cost in zip(events, line.split()[1:], strict=False):
                        totals[event] += int(cost)
                called = False
    return {"instructions": totals["Ir"], "lines": totals["ILmr"] + totals["DLmr"] + totals["DLmw"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of sampling")
    parser.add_argument("--only", choices=["sampled", "counted"], help="default: both")
    parser.add_argument("--json", type=Path, default=ROOT / "var/bench/stages.json")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.only != "counted":
        print(f"sampled for {options.seconds} s at 64 connections, ES256:", flush=True)
        figures["sampled"] = by_stage(options.seconds)
        for name, share in figures["sampled"].items():
            print(f"  {share:5.1%}  {name}", flush=True)
    if options.only != "sampled" and not shutil.which("valgrind"):
        print("no valgrind here: nothing is counted")
    elif options.only != "sampled":
        print("counted for a mint (a minute each):", flush=True)
        bench_parts.READY = READY
        for connections in CONNECTIONS:
            for whose in ("(d)", "ours"):
                seen = figures[f"counted, {whose}, {connections}"] = counted(whose, connections)
                print(
                    f"  {connections:2} at once, {whose:<4}: {seen['instructions'] / 1e6:5.2f} million instructions, "
                    f"{seen['lines']:7,.0f} lines that the second cache didn't hold",
                    flush=True,
                )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2))
    print(f"the figures are in {options.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
