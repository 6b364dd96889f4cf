"""Two replicas share nothing but a Redis Cluster of three primaries: limits, fences and the queue hold across both."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.errors import LoginRevoked, RateLimited, TenantBlocked, TooManyLiveSessions, UpstreamUnavailable
from service.principal import Principal
from service.session import Limits, Window
from service.store.cluster import Cluster
from service.store.connect import connect
from service.store.records import SHARDS, Shard, UserKeys, due_shard
from support.redis_servers import ClusterServers
from support.world import DAY, World

USERS = 24


@pytest.fixture
async def replicas(cluster: ClusterServers) -> AsyncIterator[tuple[World, World]]:
    clients = [connect(cluster.url, timeout=2.0, connections=16) for _ in range(2)]
    try:
        await empty(clients[0])
        yield World(clients[0]), World(clients[1])
        await empty(clients[0])  # other tests' tenants have the same names, and one is blocked here
    finally:
        for client in clients:
            await client.aclose()


async def empty(client: Redis) -> None:
    assert isinstance(client, Cluster)
    for each in await client.primaries():
        await each.flushall()


def people(world: World) -> list[Principal]:
    return [world.login(f"sid-{number}", subject=f"user-{number}") for number in range(USERS)]


async def test_the_load_is_on_every_primary(cluster: ClusterServers, replicas: tuple[World, World]) -> None:
    """A hot tenant is not one hot slot: its users, its gate and the due list are spread."""
    one, _ = replicas
    for keys in (
        [UserKeys.of("acme", who.subject).live for who in people(one)],
        [Shard.of("acme", shard).gate for shard in range(SHARDS)],
        [due_shard(shard) for shard in range(SHARDS)],
    ):
        assert len({cluster.owner(key).url for key in keys}) == 3


async def test_a_rate_limit_counts_mints_of_both(replicas: tuple[World, World]) -> None:
    limits = Limits(mints=(Window(6, 3600),))
    who = replicas[0].login()
    mints = [replicas[number % 2].minted(who, limits) for number in range(10)]
    found = await asyncio.gather(*mints, return_exceptions=True)
    assert sum(isinstance(each, str) for each in found) == 6
    assert sum(isinstance(each, RateLimited) for each in found) == 4


async def test_a_limit_of_live_sessions_counts_those_of_both(replicas: tuple[World, World]) -> None:
    limits = Limits(live=3)
    who = replicas[0].login()
    mints = [replicas[number % 2].minted(who, limits) for number in range(8)]
    found = await asyncio.gather(*mints, return_exceptions=True)
    assert sum(isinstance(each, str) for each in found) == 3
    assert sum(isinstance(each, TooManyLiveSessions) for each in found) == 5


async def test_a_logout_at_one_ends_what_the_other_minted(replicas: tuple[World, World]) -> None:
    one, other = replicas
    for who in people(one):
        session = await one.minted(who)
        await other.log_out(who, everywhere=False, remember=DAY)
        assert await one.status(session) == "cancelled"
        with pytest.raises(LoginRevoked):
            await one.minted(who)


async def test_what_one_left_undone_the_other_sweeps(replicas: tuple[World, World]) -> None:
    one, other = replicas
    one.upstream.cancel_raises = UpstreamUnavailable("as the test says")
    sessions = []
    for who in people(one):
        sessions.append(await one.minted(who))
        assert (await one.log_out(who, everywhere=False, remember=DAY)).pending == 1
        await other.make_due(who)
    await other.sweeper.once()
    assert {await one.status(each) for each in sessions} == {"cancelled"}
    assert await one.due() == {}


async def test_a_tenant_revoked_at_one_is_fenced_by_the_other(replicas: tuple[World, World]) -> None:
    one, other = replicas
    sessions = [await one.minted(who) for who in people(one)]
    await one.revoke.begin("acme", rate=10_000)
    with pytest.raises(TenantBlocked):
        await other.minted(other.login("new", issued_at=other.clock() + 5))
    async with asyncio.timeout(10):
        while (told := (await one.revoke.standing("acme")).progress) is None or told.state != "done":
            await other.revoke.once()
            await one.sweeper.once()
            await asyncio.sleep(0.02)
    assert (told.sessions, told.cancelled, told.failed) == (USERS, USERS, 0)
    assert {await one.status(each) for each in sessions} == {"cancelled"}
