"""Upgrades: one replica after the other is restarted, one worker after the other replaced, and no caller notices."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.parts import SERVICE_DB
from api.stack import Service
from lifecycle.conftest import Start, Surroundings
from support.processes import free_port
from support.proxy import Proxy
from support.steady import Steady

pytestmark = pytest.mark.process
short_and_long = pytest.mark.parametrize(
    "times",
    [
        pytest.param(3, marks=pytest.mark.timeout(120)),
        pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)
CALLERS = 8
BETWEEN = 40
"""Mints from one restart to the next."""


class Replica:
    """A process on ports of its own, which stay the same."""

    def __init__(self, around: Surroundings, home: Path) -> None:
        self._around = around
        self._home = home
        self.public, self.operations = free_port(), free_port()
        self.errors: list[str] = []

    def start(self) -> None:
        ports = {"CHATKIT_MINT_PORT": str(self.public), "CHATKIT_MINT_OPS_PORT": str(self.operations)}
        redis, delay = self._around.redis.url(SERVICE_DB), {"CHATKIT_MINT_SHUTDOWN_DELAY": "0.5"}
        self._home.mkdir(exist_ok=True)
        self.service = Service(self._home / "log", self._around.config, redis, **ports, **delay).wait()

    def stop(self) -> None:
        assert self.service.process.stop() == 0
        self.service.close()
        assert all(line["level"] != "error" for line in self.service.lines())


@contextlib.asynccontextmanager
async def two_replicas(around: Surroundings, home: Path) -> AsyncIterator[tuple[list[Replica], Proxy]]:
    """Behind a proxy that routes to those that are ready."""
    replicas = [Replica(around, home / f"replica-{number}") for number in range(2)]
    try:
        for replica in replicas:
            await asyncio.to_thread(replica.start)
        async with Proxy([(each.public, each.operations) for each in replicas]).running() as proxy:
            for replica in replicas:
                await proxy.until(replica.public, ready=True)
            yield replicas, proxy
    finally:
        for replica in replicas:
            replica.service.close()


@short_and_long
async def test_replicas_are_restarted_one_after_the_other_without_a_failed_request(
    around: Surroundings, tmp_path: Path, times: int
) -> None:
    async with two_replicas(around, tmp_path) as (replicas, proxy):
        async with Steady(f"http://127.0.0.1:{proxy.port}", around.issuer).load(CALLERS) as steady:
            for number in range(times):
                await steady.more(BETWEEN)
                replica = replicas[number % 2]
                await asyncio.to_thread(replica.stop)
                await asyncio.to_thread(replica.start)
                await proxy.until(replica.public, ready=True)
            await steady.more(BETWEEN)
        await settled(around, steady)


@short_and_long
async def test_workers_are_replaced_one_after_the_other_without_a_failed_request(
    start: Start, around: Surroundings, times: int
) -> None:
    house = await asyncio.to_thread(start, CHATKIT_MINT_WORKERS="2")
    async with Steady(house.service.url, around.issuer).load(CALLERS) as steady:
        for number in range(times):
            await steady.more(BETWEEN)
            place = number % 2
            worker = house.workers()[place]
            os.kill(worker, signal.SIGTERM)
            await asyncio.to_thread(house.next_after, place, worker)
        await steady.more(BETWEEN)
        assert house.service.ops("/readyz").json()["status"] == "ready"
    await settled(around, steady)
    counted = await asyncio.to_thread(house.service.counted, "mints", tenant="acme", outcome="minted")
    assert counted == len(steady.minted)
    assert await asyncio.to_thread(house.service.counted, "worker_restarts", how="asked") == times


async def settled(around: Surroundings, steady: Steady) -> None:
    """No caller saw a failure; whoever logged out has nothing left, and everybody else has what they were given."""
    assert steady.failures == []
    assert len(steady.logged_out) > BETWEEN
    sessions = {each["id"]: each["status"] for each in await asyncio.to_thread(around.sessions)}
    left = set(steady.minted) - set(steady.logged_out)
    assert {sessions[each] for each in steady.logged_out} == {"cancelled"}
    assert {sessions[each] for each in left} == {"active"}
