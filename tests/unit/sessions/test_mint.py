"""No secret leaves that can't be revoked."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.errors import (
    LoginRevoked,
    RateLimited,
    StoreUnavailable,
    TooManyLiveSessions,
    UpstreamInvalid,
    UpstreamUnavailable,
)
from service.session import Limits, Window
from service.store.records import UserKeys, login_mark
from support.world import DAY, World, names

ALICE = UserKeys.of("acme", "alice")


async def test_a_minted_session_is_known_before_it_is_answered(world: World) -> None:
    session = await world.minted(world.login())
    (live,) = await world.store.live(ALICE, now=world.clock())
    assert (live.id, live.user, live.login, live.workflow) == (session, "acme:alice", login_mark("sid-1"), "wf_1")
    assert abs(live.expires_at - world.clock() - 600) < 5


async def test_a_redis_that_forgot_the_lease_gets_the_session_cancelled(world: World, redis: Redis) -> None:
    seen = []

    async def forget(minted: object) -> None:
        seen.append(minted)
        await redis.delete(ALICE.live)

    world.upstream.before_answer = forget
    with pytest.raises(StoreUnavailable):
        await world.minted(world.login())
    assert await world.status(seen[0].session.id) == "cancelled"  # type: ignore[attr-defined]


async def test_what_can_not_be_cancelled_at_once_is_queued(world: World, redis: Redis) -> None:
    who = world.login()

    async def log_out_meanwhile(_minted: object) -> None:
        await world.log_out(who, everywhere=False, remember=DAY)

    world.upstream.before_answer = log_out_meanwhile
    world.upstream.cancels_fail.add("acme")
    with pytest.raises(LoginRevoked):
        await world.minted(who)
    (session,) = await world.queued(who)
    assert len(await world.due()) == 1
    world.upstream.cancels_fail.clear()
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.status(session) == "cancelled"
    assert await redis.hlen(ALICE.queue) == 0


async def test_a_defect_while_cancelling_still_gets_the_session_queued(world: World) -> None:
    who = world.login()

    async def log_out_meanwhile(_minted: object) -> None:
        await world.log_out(who, everywhere=False, remember=DAY)

    world.upstream.before_answer = log_out_meanwhile
    world.upstream.cancel_raises = ValueError("a defect")
    with pytest.raises(LoginRevoked):
        await world.minted(who)
    assert len(await world.queued(who)) == 1


async def test_a_sweeper_that_looks_between_listing_and_queueing_loses_nothing(
    world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the listing came too early, the user is listed again after it was queued."""
    monkeypatch.setattr("service.sessions.cancel.LISTED_FOR", 0.0)
    other, who = World(redis), world.login()
    put = world.queue.put

    async def put_late(*arguments: object, **named: object) -> None:
        await other.sweeper.once()
        await put(*arguments, **named)  # type: ignore[arg-type]

    async def log_out_meanwhile(_minted: object) -> None:
        await world.log_out(who, everywhere=False, remember=DAY)
        await world.sweeper.once()

    monkeypatch.setattr(world.queue, "put", put_late)
    world.upstream.before_answer = log_out_meanwhile
    world.upstream.cancels_fail.add("acme")
    with pytest.raises(LoginRevoked):
        await world.minted(who)
    assert len(await world.queued(who)) == 1
    assert len(await world.due()) == 1


@pytest.mark.parametrize("error", [UpstreamUnavailable("down"), ValueError("a defect")])
async def test_a_failed_create_gives_its_slot_back(world: World, error: Exception) -> None:
    limits = Limits(live=1)
    world.upstream.create_raises = error
    with pytest.raises(type(error)):
        await world.minted(world.login(), limits)
    world.upstream.create_raises = None
    await world.minted(world.login(), limits)


async def test_a_session_without_a_secret_is_cancelled(world: World) -> None:
    minted = await world.upstream.inner.create(world.account(), world.grant().body)
    world.upstream.create_raises = UpstreamInvalid("no secret", session_id=minted.session.id)
    with pytest.raises(UpstreamInvalid):
        await world.minted(world.login())
    assert await world.status(minted.session.id) == "cancelled"


async def test_a_caller_who_leaves_changes_nothing(world: World) -> None:
    asked = asyncio.Event()

    async def wait_for_the_caller_to_leave(_minted: object) -> None:
        asked.set()
        await asyncio.sleep(0.05)

    world.upstream.before_answer = wait_for_the_caller_to_leave
    caller = asyncio.create_task(world.minted(world.login()))
    await asked.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await world.mint.finish()
    assert len(await world.store.live(ALICE, now=world.clock())) == 1


async def test_a_hundred_mints_at_once_share_five_slots(world: World) -> None:
    who, limits = world.login(), Limits(live=5)
    results = await asyncio.gather(*(world.minted(who, limits) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 5
    assert sum(isinstance(result, TooManyLiveSessions) for result in results) == 95


async def test_a_hundred_mints_at_once_share_five_of_a_window(world: World) -> None:
    who, limits = world.login(), Limits(mints=(Window(5, 60), Window(50, 3600)))
    results = await asyncio.gather(*(world.minted(who, limits) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 5
    refused = [result for result in results if isinstance(result, RateLimited)]
    assert len(refused) == 95
    assert all(0 < (refusal.retry_after or 0) <= 12 for refusal in refused)


@pytest.mark.parametrize(("count", "seconds"), [(6, 1), (7, 60), (13, 60), (70, 60), (100, 86_400)])
async def test_a_whole_burst_is_let_in(world: World, count: int, seconds: int) -> None:
    """Rounding must not cost the last of it."""
    limits = Limits(mints=(Window(count, seconds * 1000),), tenant_mints=(Window(count, seconds * 1000),))
    who = world.login()
    results = await asyncio.gather(*(world.minted(who, limits) for _ in range(count + 1)), return_exceptions=True)
    refused = [result for result in results if not isinstance(result, str)]
    assert [type(each) for each in refused] == [RateLimited], refused


async def test_a_hundred_users_at_once_share_five_of_their_tenants(world: World) -> None:
    limits = Limits(tenant_mints=(Window(5, 60),))
    callers = [world.login(subject=f"user-{n}") for n in range(100)]
    results = await asyncio.gather(*(world.minted(who, limits) for who in callers), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 5
    assert sum(isinstance(result, RateLimited) for result in results) == 95


async def test_who_is_past_his_own_limit_uses_up_nothing_of_the_tenants(world: World) -> None:
    limits = Limits(mints=(Window(1, 60),), tenant_mints=(Window(3, 60),))
    await world.minted(world.login(), limits)
    for _ in range(10):
        with pytest.raises(RateLimited):
            await world.minted(world.login(), limits)
    await world.minted(world.login(subject="bob"), limits)


async def test_the_tenants_limit_uses_up_nothing_of_the_users_own(world: World) -> None:
    own = (Window(2, 86_400), Window(3, 3600))
    await world.minted(world.login(subject="bob"), Limits(tenant_mints=(Window(1, 60),)))
    for _ in range(10):
        with pytest.raises(RateLimited) as refused:
            await world.minted(world.login(), Limits(mints=own, tenant_mints=(Window(1, 60),)))
        assert 0 < (refused.value.retry_after or 0) <= 60
        assert refused.value.headers["RateLimit-Policy"] == '"tenant";q=1;w=60'
        assert refused.value.headers["RateLimit"].startswith('"tenant";r=0;t=')
    for _ in range(2):
        await world.minted(world.login(), Limits(mints=own))
    with pytest.raises(RateLimited):
        await world.minted(world.login(), Limits(mints=own))


async def test_a_refund_is_given_once(world: World) -> None:
    who, limits = world.login(), Limits(mints=(Window(2, 60),))
    await world.minted(who, limits)
    admission = await world.store.admit(who, limits, lease_seconds=30)
    for _ in range(3):
        await world.store.forgo(admission, refund=True)
    await world.minted(who, limits)
    with pytest.raises(RateLimited):
        await world.minted(who, limits)


async def test_a_mint_that_the_tenants_limit_refuses_gives_its_slot_back(world: World) -> None:
    limits = Limits(tenant_mints=(Window(1, 60),), live=1)
    await world.minted(world.login(), limits)
    with pytest.raises(RateLimited):
        await world.minted(world.login(subject="bob"), limits)
    await world.minted(world.login(subject="bob"), Limits(live=1))


async def test_the_largest_limit_that_a_file_may_hold_admits(world: World) -> None:
    await world.minted(world.login(), Limits(mints=(Window(999_999_999, 60),)))


async def test_the_oldest_session_gives_way_and_is_cancelled(world: World) -> None:
    who, limits = world.login(), Limits(live=2, excess="cancel_oldest")
    ids = [await world.minted(who, limits) for _ in range(3)]
    assert [await world.status(each) for each in ids] == ["cancelled", "active", "active"]
    assert await world.queued(who) == []


async def test_who_gave_way_is_listed_even_if_this_process_dies(
    world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, limits = world.login(), Limits(live=1, excess="cancel_oldest")
    oldest = await world.minted(who, limits)
    monkeypatch.setattr(world.canceller, "begin", lambda *_: None)
    await world.minted(who, limits)
    assert await world.queued(who) == [oldest]
    await world.make_due(who)
    await World(redis).sweeper.once()
    assert await world.status(oldest) == "cancelled"


async def test_ended_sessions_are_not_kept(world: World, redis: Redis) -> None:
    past = int(world.clock()) - 3600
    over = [f"\ncksess_{n}|{past}|0|{past}|sid|place|wf|u" for n in range(20)]
    await redis.set(ALICE.live, "".join([*over, f"\n~lease|{past}|0"]))
    kept = await world.minted(world.login())
    assert await names(redis, ALICE) == [kept]


async def test_nothing_in_redis_outlives_what_it_guards(world: World, redis: Redis) -> None:
    who, limits = world.login(), Limits(mints=(Window(5, 60),), live=1, excess="cancel_oldest")
    await world.minted(who, limits, seconds=30)
    await world.minted(who, limits, seconds=30)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=True, remember=120)
    ttls = {key.decode(): await redis.ttl(key) async for key in redis.scan_iter("cm:{acme:*")}
    assert ttls
    assert all(0 < ttl <= 130 for ttl in ttls.values()), ttls
