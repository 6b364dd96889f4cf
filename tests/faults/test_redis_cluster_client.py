"""What the cluster's client does when slots move, scripts are forgotten, callers crowd or give up."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.crc import key_slot
from redis.exceptions import ClusterError

from service.errors import StoreUnavailable
from service.observe.metrics import Metrics
from service.store.cluster import Cluster
from service.store.connect import RedisGuard, connect
from support.redis_servers import ClusterServers, Server

COUNT = "return redis.call('INCR', KEYS[1])"
CONNECTIONS = 2


@pytest.fixture
async def client(cluster: ClusterServers) -> AsyncIterator[Cluster]:
    client = connect(cluster.url, timeout=2.0, connections=CONNECTIONS)
    assert isinstance(client, Cluster)
    try:
        yield client
    finally:
        await client.aclose()


def keys_of(cluster: ClusterServers, server: Server) -> Iterator[str]:
    name = secrets.token_hex(4)
    return (key for number in range(10_000) if cluster.owner(key := f"{name}-{number}") is server)


def connections(client: Cluster) -> list[tuple[int, int]]:
    """How many each node's pool has in use, and in all."""
    pools = [node.connection_pool for node in client._clients.values()]
    return [(len(p._in_use_connections), len(p._in_use_connections) + len(p._available_connections)) for p in pools]


async def test_a_moved_slot_is_followed(cluster: ClusterServers, client: Cluster) -> None:
    _, source, target = cluster.primaries
    key = next(keys_of(cluster, source))
    count = client.register_script(COUNT)
    assert await count(["{" + key + "}other"]) == 1
    slot = key_slot(key.encode())
    await client.delete("{" + key + "}other")

    def give(owner: Server) -> None:
        name = owner.call("CLUSTER", "MYID")
        for server in (owner, source, target):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", name)

    try:
        give(target)
        assert [await count([key]) for _ in range(3)] == [1, 2, 3]
        assert int(target.call("GET", key)) == 3
        assert client._owners[slot] == ("127.0.0.1", target.port)
    finally:
        await client.delete(key)
        give(source)


async def test_a_key_that_is_being_moved_is_asked_for_on_the_connection_that_asks(
    cluster: ClusterServers, client: Cluster
) -> None:
    _, source, target = cluster.primaries
    key = next(keys_of(cluster, source))
    slot, count = key_slot(key.encode()), client.register_script(COUNT)
    # More than one connection to the target, so that the wrong one can be taken.
    await asyncio.gather(*(client.set(other, 1) for other, _ in zip(keys_of(cluster, target), range(20), strict=False)))
    target.call("CONFIG", "RESETSTAT")
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.call("CLUSTER", "MYID"))
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.call("CLUSTER", "MYID"))
    try:
        assert sorted(await asyncio.gather(*(count([key]) for _ in range(10)))) == list(range(1, 11))
        # Once each: had one gone over another connection than its command, that command would have been sent back.
        assert target.call("INFO", "commandstats")["cmdstat_asking"]["calls"] == 10
        await client.delete(key)
    finally:
        for server in (source, target):
            server.call("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_a_script_that_a_node_forgot_is_sent_again(cluster: ClusterServers, client: Cluster) -> None:
    count = client.register_script(COUNT)
    for server in cluster.primaries[1:]:
        key = next(keys_of(cluster, server))
        for turn in (1, 2):
            server.call("SCRIPT", "FLUSH")
            assert await count([key]) == turn
        server.call("SCRIPT", "FLUSH")
        async with client.pipeline(transaction=False) as pipe:
            await count([key], client=pipe)
            pipe.get(key)
            await count([key], client=pipe)
            assert await pipe.execute() == [3, b"3", 4]


async def test_callers_beyond_the_connections_to_a_node_wait_for_their_turn(
    cluster: ClusterServers, client: Cluster
) -> None:
    keys = [next(keys_of(cluster, server)) for server in cluster.primaries[1:] for _ in range(40)]
    count = client.register_script(COUNT)
    assert await asyncio.gather(*(count([key]) for key in keys)) == [1] * len(keys)
    assert max(total for _, total in connections(client)) == CONNECTIONS
    for node in client._clients.values():
        assert node.connection_pool.connection_kwargs["socket_timeout"] is None  # see 0008


async def test_callers_who_give_up_leave_nothing_broken_behind(cluster: ClusterServers) -> None:
    """From the very first call on, when the cluster is not known yet, and at whatever line they are."""
    guard = RedisGuard(Metrics(), deadline=2.0)
    keys = [next(keys_of(cluster, server)) for server in cluster.primaries[1:] for _ in range(3)]
    for _ in range(8):
        client = connect(cluster.url, timeout=2.0, connections=CONNECTIONS)
        assert isinstance(client, Cluster)
        count = client.register_script(COUNT)

        async def impatient(key: str, patience: float, count=count) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            try:
                async with RedisGuard(Metrics(), deadline=patience)():
                    await count([key])
            except StoreUnavailable:
                pass

        await asyncio.gather(*(impatient(secrets.choice(keys), secrets.randbelow(100) / 10_000) for _ in range(100)))
        for key in keys:
            async with guard():
                assert await count([key]) >= 1
        assert {used for used, _ in connections(client)} == {0}
        assert max(total for _, total in connections(client)) <= CONNECTIONS
        await client.aclose()


async def test_a_cluster_that_is_down_says_so_at_once_and_comes_back(cluster: ClusterServers, client: Cluster) -> None:
    owner = cluster.primaries[2]
    key = next(keys_of(cluster, owner))
    slot, count = key_slot(key.encode()), client.register_script(COUNT)
    guard = RedisGuard(Metrics(), deadline=2.0)
    assert await count([key]) == 1

    def whole(yes: str) -> None:
        for server in cluster.servers:
            server.call("CONFIG", "SET", "cluster-require-full-coverage", yes)

    async def told(call: Callable[[], Awaitable[object]]) -> str | None:
        started, said = time.monotonic(), None
        try:
            async with guard():
                await call()
        except StoreUnavailable as refusal:
            said = refusal.reason
        assert time.monotonic() - started < 1.5
        return said

    async def until_told(expected: str | None) -> None:
        """A user, and who asks whether the cluster is up."""
        for call in (lambda: count([key]), client.ping):
            said = await told(call)
            for _ in range(400):
                if said == expected:
                    break
                await asyncio.sleep(0.05)
                said = await told(call)
            assert said == expected

    whole("yes")
    # Its owner first: the others believe what it says.
    for server in (owner, *(each for each in cluster.servers if each is not owner)):
        server.call("CLUSTER", "DELSLOTS", slot)
    try:
        await until_told("Redis: ClusterDownError")
    finally:
        owner.call("CLUSTER", "ADDSLOTS", slot)
        whole("no")
    await until_told(None)


async def test_what_has_no_node_is_refused(client: Cluster) -> None:
    with pytest.raises(ClusterError):
        await client.info()
    with pytest.raises(ClusterError):
        client.pipeline()
    assert await client.ping()


async def test_all_primaries_are_scanned(cluster: ClusterServers, client: Cluster) -> None:
    mark = secrets.token_hex(4)
    keys = {next(keys_of(cluster, server)) + mark for server in cluster.primaries[1:]}
    for key in keys:
        await client.set(key, 1)
    assert {key.decode() async for key in client.scan_iter(match=f"*{mark}")} == keys
