"""Whatever is queued is tried until it is confirmed or over, and nobody's trouble is another's."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import NotFound, StoreUnavailable, UpstreamUnavailable
from service.session import Limits
from service.sessions import sweep
from service.sessions.cancel import PER_ACCOUNT, backoff
from service.store.queue import LISTED_FOR, Claim
from service.store.records import UserKeys
from support.world import DAY, World


async def until(condition: Callable[[], object], *, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (what is waited for is outside of our hands)
            await asyncio.sleep(0.01)


async def test_two_replicas_share_the_work_without_doing_it_twice(world: World, redis: Redis) -> None:
    other = World(redis)
    callers = [world.login(subject=f"user-{n}") for n in range(20)]
    world.upstream.cancels_fail.add("acme")
    for who in callers:
        await world.minted(who)
        await world.log_out(who, everywhere=False, remember=DAY)
        await world.make_due(who)
    world.upstream.cancels_fail.clear()
    taken = await asyncio.gather(world.sweeper.once(), other.sweeper.once())
    assert sum(taken) == 20
    assert len(world.upstream.cancelled) + len(other.upstream.cancelled) == 20
    assert await world.due() == {}


async def test_who_asks_for_sessions_that_are_not_theirs_is_not_listed(world: World) -> None:
    who = world.login()
    with pytest.raises(NotFound):
        await world.log_out.one(who, "cksess_unknown")
    assert await world.queue.pending() == (0, None)


@pytest.mark.parametrize("minting", [False, True])
async def test_who_is_listed_again_and_again_with_nothing_to_cancel_has_waited_for_nothing(
    world: World, minting: bool
) -> None:
    """Anybody could make the oldest pending cancel grow without end, and wake somebody up."""
    who = world.login()
    keys = UserKeys.of("acme", "alice")
    if minting:
        await world.store.admit(who, Limits(), lease_seconds=25)
    for later in (0, 1):  # the second makes it stand twice on the list
        await world.queue.schedule(keys, delay=LISTED_FOR + later)
    await world.redis.zadd(keys.since, {keys.tag: 1000})
    await world.make_due(who)
    await world.sweeper.once()
    users, since = await world.queue.pending()
    assert users == 1
    assert since is not None
    assert since > world.clock() - 60


async def test_who_has_something_to_cancel_waits_since_it_was_listed(world: World) -> None:
    who = world.login()
    keys = UserKeys.of("acme", "alice")
    await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.redis.zadd(keys.since, {keys.tag: 1000})
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.queue.pending() == (1, 1.0)


async def test_a_dead_upstream_of_one_tenant_holds_up_no_other(world: World) -> None:
    world.upstream.cancels_hang.add("slow")
    slow = [world.login(tenant="slow", subject=f"user-{n}") for n in range(PER_ACCOUNT * 3)]
    for who in slow:
        await world.minted(who)
        await world.queue.schedule(UserKeys.of("slow", who.subject), delay=0)
        await world.store.revoke(
            UserKeys.of("slow", who.subject), login=None, issued_at=0, remember=DAY, reason="logout"
        )
    sweeping = asyncio.create_task(world.sweeper.run())
    try:
        await until(lambda: world.upstream.hanging >= PER_ACCOUNT)
        quick = world.login(tenant="quick")
        session = await world.minted(quick)
        report = await world.log_out(quick, everywhere=False, remember=DAY)
        assert (report.cancelled, report.pending) == (1, 0)
        world.upstream.cancels_fail.add("quick")
        other = world.login("sid-2", tenant="quick")
        stuck = await world.minted(other)
        await world.log_out(other, everywhere=False, remember=DAY)
        world.upstream.cancels_fail.clear()
        await world.make_due(other)
        await until(lambda: stuck in world.upstream.cancelled)
        assert await world.status(session) == await world.status(stuck) == "cancelled"
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


async def test_a_stopped_sweeper_leaves_no_task_behind(world: World) -> None:
    world.upstream.cancels_hang.add("acme")
    who = world.login()
    await world.minted(who)
    keys = UserKeys.of("acme", "alice")
    await world.queue.schedule(keys, delay=0)
    await world.store.revoke(keys, login=None, issued_at=0, remember=DAY, reason="logout")
    before = asyncio.all_tasks()
    sweeping = asyncio.create_task(world.sweeper.run())
    await until(lambda: world.upstream.hanging == 1)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    assert asyncio.all_tasks() == before


async def test_a_session_past_its_end_is_given_up_and_counted(redis: Redis) -> None:
    now = World(redis).clock()
    ahead = World(redis, clock=lambda: now + 3600)
    world = World(redis)
    who = world.login()
    await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.make_due(who)
    await ahead.sweeper.once()
    assert ahead.count("cancels", reason="logout", outcome="expired") == 1
    assert await world.queued(who) == []
    assert await world.due() == {}


async def test_a_session_just_past_its_end_is_still_tried(redis: Redis) -> None:
    """Upstream's clock may be behind ours: the session may live on there."""
    now = World(redis).clock()
    world, later = World(redis), World(redis, clock=lambda: now + 30)
    who = world.login()
    session = await world.minted(who, seconds=20)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.make_due(who)
    await later.sweeper.once()
    assert later.upstream.cancelled == [session]


async def test_an_unreadable_entry_keeps_no_other_from_being_cancelled(world: World, redis: Redis) -> None:
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    await redis.hset(UserKeys.of("acme", "alice").queue, "cksess_poison", "not an entry")
    world.upstream.cancels_fail.clear()
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.status(session) == "cancelled"


async def test_more_queued_while_sweeping_is_not_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.login("sid-1"), world.login("sid-2")
    await world.minted(first)
    late = await world.minted(second)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(first, everywhere=False, remember=DAY)
    world.upstream.cancels_fail.clear()
    settle = world.canceller.settle

    async def settle_then_somebody_logs_out(*arguments: object, **named: object) -> object:
        report = await settle(*arguments, **named)  # type: ignore[arg-type]
        monkeypatch.undo()
        world.upstream.cancels_fail.add("acme")
        await world.log_out(second, everywhere=False, remember=DAY)
        return report

    await world.make_due(first)
    monkeypatch.setattr(world.canceller, "settle", settle_then_somebody_logs_out)
    await world.sweeper.once()
    assert await world.queued(second) == [late]
    assert len(await world.due()) == 1


async def test_a_tenant_with_too_many_under_way_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PER_TENANT", 2)
    world.upstream.cancels_fail.add("acme")
    callers = [world.login(subject=f"user-{n}") for n in range(5)]
    for who in callers:
        await world.minted(who)
        await world.log_out(who, everywhere=False, remember=DAY)
        await world.make_due(who)
    assert await world.sweeper.once() == 5
    assert len(await world.due()) == 5


def test_backoff_grows_and_is_bounded() -> None:
    for attempts in range(40):
        assert 0.5 <= backoff(attempts) <= min(30.0, 2.0**attempts)


@pytest.mark.parametrize("count", [800, 30_000])
async def test_a_backlog_of_one_tenant_stands_before_nobody_elses(world: World, count: int) -> None:
    """Users by the thousand whose upstream hangs are due before one whose upstream doesn't."""
    pipe = world.redis.pipeline(transaction=False)
    for number in range(count):
        keys = UserKeys.of("hung", f"user-{number}")
        pipe.zadd(keys.due, {keys.tag: 1})
    who = UserKeys.of("acme", "alice")
    pipe.zadd(who.due, {who.tag: 2})
    await pipe.execute()
    looks, claims = 0, list[Claim]()
    while not claims:
        claims, looks = await world.queue.claim(hidden=30.0, most=50, full=["hung"]), looks + 1
    assert [claim.keys.tenant for claim in claims] == ["acme"]
    assert looks <= 1 + count / 8 / 1_000
    # Whoever was passed over is still listed; only a backlog is put off, each to a time of its own.
    times = [at for tag, at in (await world.due()).items() if tag.startswith("hung")]
    assert len(times) == count
    assert max(times) < world.clock() * 1000 + 11_000
    assert (max(times) > 1) is (count > 8 * 2_000)


async def test_a_full_tenants_users_of_every_shard_get_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is no room for is not always of the same shards: they would be left to the end, and be slow."""
    monkeypatch.setattr(sweep, "PER_TENANT", 40)
    begun: set[int] = set()

    async def noted(keys: UserKeys) -> list[Any]:
        begun.add(keys.shard)
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(world.queue, "queued", noted)
    for number in range(200):
        await world.queue.schedule(UserKeys.of("acme", f"user-{number}"), delay=0)
    assert await world.sweeper._take() == 200
    await asyncio.sleep(0.1)
    for task in world.sweeper._running:
        task.cancel()
    assert len(begun) >= 5  # of 8; by chance, but once in millions


async def test_the_sweeper_says_whose_backlog_it_has_enough_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PER_TENANT", 3)
    world.upstream.cancels_hang.add("hung")
    for number in range(5):
        who = world.login(tenant="hung", subject=f"user-{number}")
        await world.minted(who)
        await world.queue.schedule(UserKeys.of("hung", who.subject), delay=0)
        await world.store.revoke(UserKeys.of("hung", who.subject), login=None, remember=DAY, reason="logout")
    await world.sweeper._take()
    await asyncio.sleep(0)
    asked = []
    claim = world.queue.claim

    async def noted(**options: Any) -> Any:
        asked.append(options["full"])
        return await claim(**options)

    monkeypatch.setattr(world.queue, "claim", noted)
    await world.sweeper._take()
    for task in world.sweeper._running:
        task.cancel()
    await asyncio.gather(*world.sweeper._running, return_exceptions=True)
    assert asked == [["hung"]]


async def test_a_stopped_sweeper_hands_back_what_it_had_claimed(world: World, redis: Redis) -> None:
    """Else nobody would see the user for half a minute, and a logged-out session would live on for as long."""
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancel_raises = UpstreamUnavailable("as the test says")
    await world.log_out(who, everywhere=False, remember=DAY)
    world.upstream.cancel_raises = None
    world.upstream.cancels_hang.add("acme")
    await world.make_due(who)
    sweeping = asyncio.create_task(world.sweeper.run())
    await until(lambda: world.upstream.hanging == 1)
    other = World(redis)
    assert await other.sweeper.once() == 0
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    assert await other.sweeper.once() == 1
    assert await world.status(session) == "cancelled"


async def test_a_sweeper_stops_also_where_redis_takes_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = world.login()
    await world.minted(who)
    world.upstream.cancels_hang.add("acme")
    await world.queue.schedule(UserKeys.of("acme", "alice"), delay=0)
    await world.store.revoke(UserKeys.of("acme", "alice"), login=None, issued_at=0, remember=DAY, reason="logout")
    sweeping = asyncio.create_task(world.sweeper.run())
    await until(lambda: world.upstream.hanging == 1)

    async def away(_claim: Claim, *, delay: float | None) -> None:
        raise StoreUnavailable(f"as the test says ({delay})")

    monkeypatch.setattr(world.queue, "release", away)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
