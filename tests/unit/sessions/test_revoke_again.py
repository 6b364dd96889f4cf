"""What the review of revocation found: each of these fails on f07246f."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from service import background
from service.errors import Conflict, Refusal
from service.store.records import Shard, UserKeys, login_name, shard_of
from support.world import DAY, World

QUICK = 10_000.0
ALICE = UserKeys.of("acme", "alice")


async def settled(world: World, tenant: str = "acme", rounds: int = 100) -> Any:
    """Carry a revocation on until it says that it is done."""
    while True:
        told = (await world.revoke.standing(tenant)).progress
        if told is None or told.state == "done":
            return told
        assert (rounds := rounds - 1), told
        await world.revoke.once()
        await world.sweeper.once()


async def test_01_a_tenant_let_in_again_can_be_revoked_again_while_old_cancels_are_retried(world: World) -> None:
    await world.minted(world.login())
    world.upstream.cancels_fail.add("acme")
    await world.revoke.begin("acme", rate=QUICK)
    await world.revoke.once()
    assert await world.revoke.unblock("acme")
    later = world.login("sid-2", subject="bob", issued_at=world.clock() + 1)
    session = await world.minted(later)
    await world.revoke.begin("acme", rate=QUICK)
    world.upstream.cancels_fail.clear()
    await world.make_due(world.login())
    await settled(world)
    assert await world.status(session) == "cancelled"


async def test_02_a_replica_that_looks_while_it_begins_does_not_end_it(world: World, redis: Redis) -> None:
    """SADD … [look: nothing there yet] … begin … [advance]: done, with nobody fenced."""
    session = await world.minted(world.login())
    other = World(redis)
    begun: list[Any] = []
    ask = other.revoke._revocations.progress

    async def slow_answer(tenant: str) -> Any:
        told = await ask(tenant)
        if not begun:
            begun.append(await world.revoke.begin(tenant, rate=QUICK))
        return told

    other.revoke._revocations.progress = slow_answer  # type: ignore[method-assign]
    await redis.sadd("cm:revocations", "acme")  # begin's first step
    await other.revoke.once()
    await redis.delete("cm:revocation:{acme}:lock")
    await settled(world)
    assert await world.status(session) == "cancelled"


async def test_03_a_replica_that_finishes_the_last_one_does_not_lose_the_next(world: World, redis: Redis) -> None:
    """The last one is done; before its name is off the list the next begins: nobody ever carries that on."""
    await world.revoke.begin("acme", rate=QUICK)
    other = World(redis)
    advance: Any = other.revoke._revocations._advance
    begun: list[str] = []

    async def slow_answer(*arguments: Any) -> Any:
        state = await advance(*arguments)
        if not begun:
            await world.revoke.unblock("acme")
            begun.append(await world.minted(world.login(issued_at=world.clock() + 1)))
            await world.revoke.begin("acme", rate=QUICK)
        return state

    other.revoke._revocations._advance = slow_answer  # type: ignore[assignment]
    await other.revoke.once()
    await redis.delete("cm:revocation:{acme}:lock")
    await settled(world)
    assert await world.status(begun[0]) == "cancelled"


async def test_04_it_is_not_done_while_a_session_that_a_user_logged_out_of_still_lives(world: World) -> None:
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.revoke.begin("acme", rate=QUICK)
    await world.revoke.once()
    await world.revoke.once()
    told = (await world.revoke.standing("acme")).progress
    assert await world.status(session) == "active"
    assert told is not None
    assert (told.state, told.remaining) == ("cancelling", 1)
    world.upstream.cancels_fail.clear()
    await world.make_due(who)
    told = await settled(world)
    assert (told.sessions, told.cancelled, told.failed) == (1, 1, 0)


async def test_05_a_job_that_redis_lost_leaves_the_tenant_revocable(world: World, redis: Redis) -> None:
    """In a Cluster the job lies on one primary and the users on others: the job's can come back without it."""
    session = await world.minted(world.login())
    await world.revoke.begin("acme", rate=QUICK)
    await redis.delete("cm:revocation:{acme}:job")
    await world.revoke._fence_user(UserKeys.of("acme", "alice"), 0.0)
    assert (await world.revoke.standing("acme")).progress is None
    await world.revoke.begin("acme", rate=QUICK)
    await settled(world)
    assert await world.status(session) == "cancelled"


async def test_06_one_tenants_trouble_holds_up_no_others_revocation(world: World, redis: Redis) -> None:
    session = await world.minted(world.login(tenant="beta"))
    await redis.set("cm:revocation:{acme}:job", "of another kind")  # its primary is gone, its record is damaged…
    await redis.sadd("cm:revocations", "acme")
    await world.revoke.begin("beta", rate=QUICK)
    for _ in range(10):
        with suppress(Refusal):
            await world.revoke.once()
        await world.make_due(world.login(tenant="beta"))
        await world.sweeper.once()
    assert await world.status(session) == "cancelled"


async def test_07_one_users_trouble_keeps_no_other_user_from_being_fenced(world: World, redis: Redis) -> None:
    users = [world.login(subject=f"user-{n}") for n in range(30)]
    sessions = [await world.minted(who) for who in users]
    await redis.delete(UserKeys.of("acme", "user-0").fence)
    await redis.set(UserKeys.of("acme", "user-0").fence, "of another kind")
    await world.revoke.begin("acme", rate=QUICK)
    for _ in range(3):
        with suppress(Refusal):
            await world.revoke.once()
        for who in users:
            await world.make_due(who)
        await world.sweeper.once()
    statuses = [await world.status(each) for each in sessions[1:]]
    assert statuses.count("active") == 0


async def test_08_who_is_hurried_is_still_listed_for_what_another_is_about_to_queue(world: World, redis: Redis) -> None:
    """Logout A lists the user; B of the same user hurries it; a sweeper sees B through and takes the user off the list;
    A queues, and its process is killed."""
    who, keys = world.login(), UserKeys.of("acme", "alice")
    session = await world.minted(who)
    await world.queue.schedule(keys, delay=10)  # A
    await world.queue.schedule(keys, delay=0)  # B
    await world.sweeper.once()
    await world.store.revoke(keys, login=None, remember=DAY, reason="logout")  # A, and killed
    assert await world.queued(who) == [session]
    listed: Any = await redis.zrange(keys.due, 0, -1)
    assert [entry.decode().rstrip("+") for entry in listed] == [keys.tag]


async def test_09_past_its_end_a_cancel_is_backed_off_too(redis: Redis) -> None:
    now = time.time()
    world = World(redis)
    who = world.login()
    await world.minted(who, seconds=5)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    later = World(redis, clock=lambda: now + 10)
    (queued,) = await world.queue.queued(UserKeys.of("acme", "alice"))
    assert later.canceller.next_try([replace(queued, attempts=8)]) > 5


async def test_10_a_sweeper_survives_a_defect(world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.05)
    await redis.zadd("cm:due:0", {b"\xff": 0})
    running = asyncio.create_task(world.sweeper.run())
    ended, _ = await asyncio.wait({running}, timeout=0.3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not ended


async def test_11_a_block_with_a_hole_is_not_told_as_a_block(world: World, redis: Redis) -> None:
    await world.revoke.begin("acme", rate=QUICK)
    await redis.delete(
        Shard.of("acme", shard_of(login_name("", "sid-1"))).gate
    )  # a failover lost it: an eighth of the users mints
    await world.minted(world.login())
    assert (await world.revoke.standing("acme")).blocked_since is None


async def test_12_a_block_is_told_though_the_list_of_blocks_was_lost(world: World, redis: Redis) -> None:
    await world.revoke.begin("acme", rate=QUICK)
    await redis.delete("cm:blocked")
    assert (await world.revoke.standing("acme")).blocked_since is not None


async def test_13_whoever_asks_finds_a_revocation_that_no_replica_knows_of_any_more(world: World, redis: Redis) -> None:
    session = await world.minted(world.login())
    await world.revoke.begin("acme", rate=QUICK)
    await redis.delete("cm:revocations")  # lies on another primary than the job: a failover lost it alone
    with pytest.raises(Conflict):
        await world.revoke.unblock("acme")
    await settled(world)
    assert await world.status(session) == "cancelled"


async def listings(redis: Redis, who: UserKeys) -> list[str]:
    entries: Any = await redis.zrange(who.due, 0, -1)
    return [entry.decode() for entry in entries]


async def test_14_who_is_fenced_is_swept_once(world: World, redis: Redis) -> None:
    await world.minted(world.login())
    await world.revoke.begin("acme", rate=QUICK)
    await world.revoke.once()
    assert await listings(redis, ALICE) == [ALICE.tag]
    assert await world.sweeper.once() == 1
    assert await listings(redis, ALICE) == []


@pytest.mark.parametrize("before", [True, False])
async def test_15_but_stands_twice_while_another_is_about_to_queue(world: World, redis: Redis, *, before: bool) -> None:
    session = await world.minted(world.login())
    if before:
        await world.queue.schedule(ALICE, delay=10)
    listed = await world.queue.schedule(ALICE, delay=10)
    assert (listed is None) == before
    if not before:
        await world.queue.schedule(ALICE, delay=10)
    await world.queue.hurry(ALICE, listed, delay=0)
    await world.sweeper.once()
    await world.store.revoke(ALICE, login=None, remember=DAY, reason="logout")  # the other, and killed
    assert await world.queued(world.login()) == [session]
    assert await listings(redis, ALICE) == [f"{ALICE.tag}+"]


async def test_16_who_was_swept_meanwhile_is_listed_anew(world: World) -> None:
    listed = await world.queue.schedule(ALICE, delay=0)
    await world.sweeper.once()
    assert await world.due() == {}
    await world.queue.hurry(ALICE, listed, delay=0)
    assert list(await world.due()) == [ALICE.tag]


async def test_who_opens_a_tenant_while_another_begins_to_revoke_it_is_told(world: World) -> None:
    """Two operators: one looks before the other begins, and opens after."""
    await world.minted(world.login())
    await world.revoke._tenants.block("acme")
    opened = world.revoke._tenants.unblock

    async def begun_in_between(tenant: str, *, remember: float) -> bool:
        await world.revoke.begin(tenant, rate=QUICK)
        return await opened(tenant, remember=remember)

    world.revoke._tenants.unblock = begun_in_between  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await world.revoke.unblock("acme")
    assert await world.revoke._tenants.since("acme") is not None


async def test_who_begins_while_another_opens_finds_the_tenant_closed(world: World) -> None:
    begin = world.revoke._revocations.begin

    async def opened_in_between(tenant: str, *, rate: float) -> None:
        await world.revoke._tenants.unblock(tenant, remember=DAY)
        await begin(tenant, rate=rate)

    world.revoke._revocations.begin = opened_in_between  # type: ignore[method-assign]
    assert (await world.revoke.begin("acme", rate=QUICK)).blocked_since is not None
