"""Who may have something alive, by tenant and by login: listed before anything can be, and at least as long."""

import random
from typing import Any

import pytest
from redis.asyncio import Redis

from service.observe.metrics import Metrics
from service.store.connect import RedisGuard
from service.store.logins import LoginStore
from service.store.records import Shard, UserKeys, login_name, shard_of
from service.store.scripts import lua
from service.store.tenants import TenantStore

ISSUER = "https://login.example/"
ALIVE = 100
SPARE = 600


class Lists:
    """A tenant's gate and lists, and a way to let time pass for them."""

    def __init__(self, redis: Redis) -> None:
        guard = RedisGuard(Metrics(), deadline=5.0)
        self.redis: Any = redis
        self.tenants, self.logins = TenantStore(redis, guard), LoginStore(redis, guard)
        self.gate = redis.register_script(lua("gate"))

    async def mint(self, subject: str, login: str | None, *, alive: int = ALIVE, issued_at: int = 1) -> str:
        keys = UserKeys.of("acme", subject)
        name = login_name(ISSUER, login) if login else b""
        shard = Shard.of("acme", shard_of(name) if login else keys.shard)
        where = [shard.gate, *shard.users, *([shard.ended(name)] if login else [])]
        told: bytes = await self.gate(where, [name, keys.digest, issued_at, alive])
        return told.decode()

    async def listed(self) -> set[UserKeys]:
        pages = [page async for page in self.tenants.listed("acme", most=20)]
        assert all(0 < len(page) <= 20 for page in pages)
        return {keys for page in pages for each in page for keys in each.users}

    async def end(self, login: str, remember: float = 1000) -> set[UserKeys]:
        return set(await self.logins.end("acme", ISSUER, login, remember=remember))

    async def pass_time(self, seconds: float) -> None:
        async for key in self.redis.scan_iter("cm:tenant:*"):
            left = await self.redis.pttl(key) - int(seconds * 1000)
            if began := await self.redis.hget(key, "!"):
                await self.redis.hset(key, "!", int(began) - int(seconds))
            await self.redis.pexpire(key, left)

    def users(self, login: str) -> tuple[str, str]:
        return Shard.of("acme", shard_of(login_name(ISSUER, login))).users


@pytest.fixture
def lists(redis: Redis) -> Lists:
    return Lists(redis)


def user(subject: str) -> UserKeys:
    return UserKeys.of("acme", subject)


async def test_whoever_mints_is_listed_with_a_login_and_without(lists: Lists) -> None:
    assert await lists.mint("alice", "sid-1") == "ok"
    assert await lists.mint("bob", None) == "ok"
    assert await lists.mint("alice", "sid-1") == "ok"
    assert await lists.mint("bob", None) == "ok"
    assert await lists.listed() == {user("alice"), user("bob")}
    assert await lists.tenants.count("acme") == 2
    without = Shard.of("acme", user("bob").shard).users[0]
    assert await lists.redis.hget(without, b"|" + user("bob").digest) == b""


async def test_nobody_is_listed_whom_the_gate_refuses(lists: Lists) -> None:
    await lists.tenants.block("acme")
    assert [await lists.mint("alice", "sid-1"), await lists.mint("bob", None)] == ["blocked", "blocked"]
    await lists.tenants.unblock("acme", remember=60)
    assert [await lists.mint("alice", "sid-1"), await lists.mint("bob", None)] == ["revoked", "revoked"]
    await lists.end("sid-2")
    assert await lists.mint("alice", "sid-2", issued_at=2**53) == "revoked"
    assert await lists.listed() == set()
    assert await lists.mint("alice", "sid-1", issued_at=2**53) == "ok"


async def test_a_token_of_the_very_moment_of_a_block_is_refused(lists: Lists) -> None:
    await lists.tenants.block("acme")
    await lists.tenants.unblock("acme", remember=60)
    fence = int(await lists.redis.hget(Shard.of("acme", user("bob").shard).gate, "fence"))
    assert await lists.mint("bob", None, issued_at=fence) == "revoked"
    assert await lists.mint("bob", None, issued_at=fence + 1) == "ok"


async def test_a_list_stands_longer_than_its_entries_matter_whatever_redis_rounds(lists: Lists) -> None:
    await lists.mint("alice", "sid-1")
    newer, _ = lists.users("sid-1")
    await lists.redis.pexpire(newer, (ALIVE + SPARE) * 1000 - 300)  # which Redis tells as a whole second
    await lists.mint("alice", "sid-1")
    assert await lists.redis.pttl(newer) > (ALIVE + SPARE) * 1000


async def test_a_login_that_ends_by_its_name_tells_whose_it_was_and_nobody_elses(lists: Lists) -> None:
    for subject, login in (("alice", "sid-1"), ("bob", "sid-1"), ("carol", "sid-2"), ("dave", None)):
        await lists.mint(subject, login)
    assert await lists.end("sid-1") == {user("alice"), user("bob")}
    assert [await lists.mint("alice", "sid-1"), await lists.mint("carol", "sid-2")] == ["revoked", "ok"]
    assert await lists.end("never seen") == set()


async def test_the_mark_of_an_end_stands_as_long_as_the_longest_that_asked(lists: Lists) -> None:
    name = login_name(ISSUER, "sid-1")
    mark = Shard.of("acme", shard_of(name)).ended(name)
    for remember, stands in ((500, 500), (50, 500), (900, 900)):
        await lists.end("sid-1", remember)
        assert stands - 2 < await lists.redis.ttl(mark) <= stands + 1


@pytest.mark.parametrize("count", [1, 15, 16, 17, 18, 40])
async def test_a_login_of_many_users_ends_for_all_of_them_and_its_entry_stays_small(lists: Lists, count: int) -> None:
    # Any byte may be in a digest, those that mean something in a pattern too.
    odd = next(name for name in map(str, range(9999)) if set(b"*?[]\\^") & set(login_name(ISSUER, name)))
    for login in (odd, "sid-2"):
        everybody = {user(f"{login}-{number}") for number in range(count)}
        for number in [*range(count), *range(count)]:
            await lists.mint(f"{login}-{number}", login)
        taken = await lists.redis.hstrlen(lists.users(login)[0], login_name(ISSUER, login))
        assert taken == min(count, 16) * 12 + (count > 16)  # each once; a `+` says that there are more
        assert await lists.end(login) == everybody
        assert everybody <= await lists.listed()


async def test_a_crowd_is_found_in_both_generations(lists: Lists) -> None:
    for number in range(20):
        await lists.mint(f"old-{number}", "sid-1")
    await lists.pass_time(ALIVE)
    for number in range(20):
        await lists.mint(f"new-{number}", "sid-1")
    assert await lists.end("sid-1") == {user(f"{age}-{number}") for age in ("old", "new") for number in range(20)}


async def test_a_long_list_is_gone_through_though_it_gets_shorter_meanwhile(lists: Lists) -> None:
    everybody = {user(f"user-{number}") for number in range(6000)}
    pipe = lists.redis.pipeline(transaction=False)
    for keys in everybody:
        pipe.hset(Shard.of("acme", 3).users[keys.shard % 2], b"|" + keys.digest, "")
    await pipe.execute()
    found = set()
    async for some in lists.tenants.listed("acme", most=20):
        found |= {keys for each in some for keys in each.users}
        await lists.tenants.forget(some)
    assert found == everybody
    assert await lists.listed() == set()
    assert await lists.tenants.count("acme") == 0


async def test_a_list_becomes_the_older_one_when_it_began_long_enough_ago(lists: Lists) -> None:
    newer, older = lists.users("sid-1")
    await lists.mint("alice", "sid-1")
    await lists.pass_time(ALIVE - 2)
    await lists.mint("alice", "sid-1")
    assert not await lists.redis.exists(older)
    await lists.pass_time(2)
    stands = await lists.redis.pttl(newer)
    await lists.mint("bob", "sid-1")
    assert stands - 5000 < await lists.redis.pttl(older) <= stands
    assert await lists.redis.hvals(newer) != await lists.redis.hvals(older)
    assert await lists.listed() == await lists.end("sid-1") == {user("alice"), user("bob")}
    assert await lists.redis.hlen(newer) == await lists.redis.hlen(older) == 2


async def test_the_older_one_makes_room_when_nothing_of_it_matters_and_no_sooner(lists: Lists) -> None:
    newer, older = lists.users("sid-1")
    await lists.mint("alice", "sid-1")
    await lists.pass_time(ALIVE)
    await lists.mint("bob", "sid-1")
    await lists.redis.hset(newer, "!", 1)  # long ago
    await lists.redis.pexpire(older, SPARE * 1000 + 3000)
    await lists.mint("bob", "sid-1")
    assert await lists.listed() == {user("alice"), user("bob")}
    await lists.redis.pexpire(older, SPARE * 1000)
    await lists.mint("carol", "sid-1")
    assert await lists.listed() == {user("bob"), user("carol")}
    assert await lists.redis.hget(newer, "!") > b"1"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_times_nobody_leaves_early_and_nobody_stays_for_ever(lists: Lists, seed: int) -> None:
    chance, now = random.Random(seed), 0.0  # noqa: S311  (drawn, not guarded against)
    newer, older = lists.users("sid-1")
    last: dict[UserKeys, float] = {}
    for _ in range(300):
        passed = chance.choice([0, 1, 7, 40, 99, 100, 101, 350])
        now += passed
        await lists.pass_time(passed)
        subject = f"user-{chance.randrange(40)}"
        assert await lists.mint(subject, "sid-1") == "ok"
        last[user(subject)] = now
        there = await lists.listed()
        assert there >= {keys for keys, at in last.items() if at + ALIVE > now}
        # Two generations, each as long as the mints of the one before it matter, and their rounding.
        assert {keys for keys, at in last.items() if at + 4 * ALIVE + 350 < now}.isdisjoint(there)
        assert await lists.redis.ttl(newer) >= ALIVE + SPARE
        assert await lists.redis.ttl(older) <= ALIVE + SPARE + 2


async def test_another_replicas_longer_sessions_are_listed_as_long(lists: Lists) -> None:
    await lists.mint("alice", "sid-1", alive=5 * ALIVE)
    await lists.mint("bob", "sid-1")
    assert await lists.redis.ttl(lists.users("sid-1")[0]) >= 5 * ALIVE + SPARE
    for _ in range(4):
        await lists.pass_time(ALIVE)
        await lists.mint("bob", "sid-1")
    assert user("alice") in await lists.listed()
