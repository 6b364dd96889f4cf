"""Three replicas of the example server: how late after a confirmed logout does a request still succeed?"""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from server import guarded

from authority.parts import KEY, on_a_port
from chatkit_sessions import Verifier
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.redis import RedisVerifier
from selfhosted.parts import SIGNERS, Person, body
from support.processes import ROOT, Process, clean_environ, free_port

pytestmark = pytest.mark.process
REPLICAS = 3
PROMISED = 1.0
KINDS = ["redis", "http"]


@dataclass
class Visit:
    """What became of one person's requests."""

    successes: int = 0
    refusals: int = 0
    left: float = 0.0
    latest: float = -1.0
    """Seconds from the confirmed logout to the end of the last request that succeeded."""
    begun_after: int = 0
    """Requests that began after the logout was confirmed, and succeeded."""


async def keep_asking(person: Person, replica: httpx2.AsyncClient, visit: Visit, until: asyncio.Event) -> None:
    while not until.is_set():
        begun = time.monotonic()
        answer = await replica.post("/chatkit", headers=person.headers, content=body("threads.list"))
        ended = time.monotonic()
        # 503: so busy a machine that the verifier's second is over. It lets nobody in, and proves nothing.
        assert answer.status_code in (200, 401, 503), answer.text
        if answer.status_code == 200:
            visit.successes += 1
            if visit.left:
                visit.latest = max(visit.latest, ended - visit.left)
                visit.begun_after += begun > visit.left
        visit.refusals += answer.status_code == 401
        await asyncio.sleep(0.2 * random.random())


async def visiting(mint: httpx2.AsyncClient, replicas: list[httpx2.AsyncClient], number: int, seconds: float) -> Visit:
    """Ask every replica again and again, log out at some time, and go on asking."""
    person = await Person(mint, replicas[0], SIGNERS["acme"], f"user-{number}-{random.random()}").arrive()
    visit, until = Visit(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(keep_asking(person, replica, visit, until))
        await asyncio.sleep(random.uniform(0.3, seconds))
        visit.left = await person.leave()
        await asyncio.sleep(PROMISED + 0.4)
        until.set()
    return visit


async def measure(mint_url: str, urls: list[str], people: int, seconds: float) -> list[Visit]:
    async with AsyncExitStack() as stack:
        mint, *replicas = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=30)) for url in (mint_url, *urls)
        ]
        return await asyncio.gather(*(visiting(mint, replicas, number, seconds) for number in range(people)))


def verdict(kind: str, visits: list[Visit]) -> str:
    """Hold the visits against what is promised; a line to read."""
    latest = max(visit.latest for visit in visits)
    successes, refusals = (sum(getattr(visit, name) for visit in visits) for name in ("successes", "refusals"))
    assert all(visit.successes and visit.refusals for visit in visits), "too few to tell"
    assert latest < PROMISED, f"{kind}: {latest:.3f} s after the logout"
    if kind == "redis":
        assert not any(visit.begun_after for visit in visits)
    last = f"the latest success ended {latest:.3f} s after" if latest >= 0 else "no success ended after"
    return (
        f"{kind}: {len(visits)} logouts, {successes} requests let through, {refusals} refused; "
        f"{last} its logout was confirmed"
    )


def verifier_of(kind: str, redis: Redis, mint_url: str) -> Verifier:
    return RedisVerifier(redis) if kind == "redis" else HTTPVerifier(mint_url, KEY)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_succeeds_later_than_a_second_after_a_logout(
    kind: str, mint_url: str, redis: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        urls = []
        for number in range(REPLICAS):
            verifier = verifier_of(kind, redis, mint_url)
            stack.push_async_callback(verifier.aclose)
            app = guarded({"CHAT_DIR": str(tmp_path / str(number))}, verifier)
            urls.append(await stack.enter_async_context(on_a_port(app, "off")))
        visits = await measure(mint_url, urls, people=6, seconds=1.0)
    with capsys.disabled():
        print(f"\n{verdict(kind, visits)}")


@asynccontextmanager
async def processes(folder: Path, **environ: str) -> AsyncIterator[list[str]]:
    """The replicas in processes of their own, with one folder."""
    started = []
    try:
        for number in range(REPLICAS):
            port = free_port()
            settings = clean_environ(CHAT_PORT=str(port), CHAT_DIR=str(folder / str(number)), **environ)
            command = [sys.executable, "server.py"]
            place = ROOT / "docs" / "examples" / "self-hosted"
            output = folder / f"{number}.log"
            started.append((Process(output=output, environ=settings, cwd=place, command=command), port))
        urls = [f"http://127.0.0.1:{port}" for _, port in started]
        for (process, _), url in zip(started, urls, strict=True):
            await asyncio.to_thread(process.wait_ready, f"{url}/")
        yield urls
    finally:
        for process, _ in started:
            process.stop()


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_in_processes_and_for_minutes(
    kind: str, mint_url: str, redis_socket: Path, redis: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del redis
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    where = {"CHAT_REDIS_URL": f"unix://{redis_socket}"}
    if kind == "http":
        where = {"CHAT_MINT_URL": mint_url, "CHAT_MINT_KEY": KEY}
    visits: list[Visit] = []
    async with processes(tmp_path, **where) as urls:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            visits += await measure(mint_url, urls, people=10, seconds=3.0)
    with capsys.disabled():
        print(f"\n{verdict(kind, visits)}")
