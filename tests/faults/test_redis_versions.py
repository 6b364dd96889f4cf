"""Every Redis and Valkey on this machine does the whole job, alone; and so does a cluster."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import LoginRevoked, RateLimited, StoreUnavailable, TooManyLiveSessions, UpstreamUnavailable
from service.session import Limits, Window
from service.store.cluster import Cluster
from service.store.connect import connect
from service.store.records import UserKeys
from support.redis_servers import ClusterServers, Server, servers_found
from support.world import World


@pytest.fixture(params=servers_found(), ids=lambda path: "-".join(path.parts[-3:]))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis", binary=request.param).start()
    yield server
    server.kill()


@asynccontextmanager
async def world_on(url: str) -> AsyncIterator[World]:
    redis = connect(url, timeout=2.0, connections=10)
    try:
        for each in await redis.primaries() if isinstance(redis, Cluster) else [redis]:
            await each.flushall()
        yield World(redis)
    finally:
        await redis.aclose()


@pytest.fixture
async def world(server: Server) -> AsyncIterator[World]:
    async with world_on(server.url) as world:
        yield world


async def test_a_cluster_does_the_whole_job(cluster: ClusterServers) -> None:
    for job in (test_sessions_are_minted_listed_and_cancelled, test_limits_hold):
        async with world_on(cluster.url) as world:
            await job(world)


async def test_sessions_are_minted_listed_and_cancelled(world: World) -> None:
    alice = world.login()
    keys = UserKeys.of(alice.tenant, alice.subject)
    first = await world.minted(alice)
    kept = await world.minted(world.login("sid-2"))
    assert {live.id for live in await world.store.live(keys, now=world.clock())} == {first, kept}
    assert (await world.log_out.one(alice, first)).id == first
    world.upstream.cancel_raises = UpstreamUnavailable("as the test says")
    assert (await world.log_out(world.login("sid-2"), everywhere=False, remember=600)).pending == 1
    with pytest.raises(LoginRevoked):
        await world.minted(world.login("sid-2"))
    world.upstream.cancel_raises = None
    await world.make_due(alice)
    assert await world.sweeper.once() == 1
    assert [await world.status(each) for each in (first, kept)] == ["cancelled", "cancelled"]
    assert await world.queued(alice) == []


async def test_limits_hold(world: World) -> None:
    few = Limits(live=1, excess="refuse", mints=(Window(2, 60),), tenant_mints=(Window(1, 60),))
    await world.minted(world.login(), few)
    with pytest.raises(TooManyLiveSessions):
        await world.minted(world.login(), few)
    with pytest.raises(RateLimited):
        await world.minted(world.login(subject="bob"), few)
    one = Limits(live=1, excess="cancel_oldest")
    oldest = await world.minted(world.login(subject="carol"), one)
    await world.minted(world.login(subject="carol"), one)
    assert await world.status(oldest) == "cancelled"


async def test_a_server_that_does_not_write_is_told_from_one_that_does(server: Server, world: World) -> None:
    await world.minted(world.login())
    for hurt, heal, reasons in (
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), {"Redis: NotPrimary"}),
        (
            ("CONFIG", "SET", "maxmemory", "1"),
            ("CONFIG", "SET", "maxmemory", "0"),
            {"Redis: OutOfMemoryError", "Redis: OOM"},
        ),
    ):
        server.call(*hurt)
        for call in (world.minted(world.login()), world.store.ping()):
            with pytest.raises(StoreUnavailable) as refusal:
                await call
            assert refusal.value.reason in reasons
        server.call(*heal)
        await world.store.ping()
        await world.minted(world.login())
