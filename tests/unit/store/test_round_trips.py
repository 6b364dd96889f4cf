"""A mint asks Redis twice: once before upstream, once after."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.contract import CreateSession
from service.errors import UpstreamUnavailable
from service.session import Account, Limits, Minted, Session, Status, Window
from service.store.connect import connect
from support.world import World

MINTS = 10


class Elsewhere:
    """An issuer that asks no Redis."""

    made = 0

    async def create(self, _account: Account, body: CreateSession) -> Minted:
        self.made += 1
        session = Session(f"cksess_{self.made}", body["user"], 4_000_000_000, Status.ACTIVE, {}, {}, {})
        return Minted(session, "ek_1")

    async def cancel(self, _account: Account, _session_id: str) -> Session | None:
        raise UpstreamUnavailable("nothing is cancelled here")


@pytest.fixture
async def world(redis: Redis, redis_socket: Path) -> AsyncIterator[World]:
    await redis.config_resetstat()
    client = connect(f"unix://{redis_socket}", timeout=2.0, connections=8)
    world = World(client)
    world.mint._issuers = {"authority": Elsewhere()}
    yield world
    await client.aclose()


async def test_a_mint_takes_two_round_trips(world: World, redis: Redis) -> None:
    """Redis itself counts how often it read something from a connection."""
    limits = Limits(mints=(Window(100, 60), Window(1000, 86_400)), live=50, excess="cancel_oldest")

    async def reads() -> int:
        told: int = (await redis.info("stats"))["total_reads_processed"]
        return told

    await world.mint(world.login("warm"), world.grant(limits=limits))  # connects, and tells Redis the scripts
    before = await reads()
    own = await reads() - before
    before = await reads()
    for number in range(MINTS):
        await world.mint(world.login(f"sid-{number}"), world.grant(limits=limits))
    assert await reads() - before - own == 2 * MINTS
