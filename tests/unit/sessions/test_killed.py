"""A process that ends between two lines leaves nothing that nobody would cancel."""

import pytest
from redis.asyncio import Redis

from service.errors import LoginRevoked
from service.principal import Principal
from service.session import Limits, Live
from service.store.records import UserKeys, login_mark
from service.store.sessions import Crowded
from support.world import DAY, World

ALICE = UserKeys.of("acme", "alice")


async def created(world: World, who: Principal) -> Live:
    """Upstream's answer has arrived, and nothing was done about it yet."""
    session = (await world.upstream.create(world.account(), world.grant().body)).session
    place, now = world.account().place, world.clock()
    return Live(session.id, session.user, "wf_1", login_mark(who.login), now, session.expires_at, who.issued_at, place)


async def test_a_session_that_record_refuses_is_cancelled_though_nobody_lives_to_do_it(
    world: World, redis: Redis
) -> None:
    who, limits = world.login(), Limits()
    admission = await world.store.admit(who, limits, lease_seconds=25)
    live = await created(world, who)
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.make_due(who)
    await world.sweeper.once()  # finds nothing, but a mint under way
    with pytest.raises(LoginRevoked):
        await world.store.record(admission, live, limits)
    assert ALICE.tag in await world.due()
    await world.make_due(who)
    await World(redis).sweeper.once()
    assert await world.status(live.id) == "cancelled"
    assert await world.due() == {}


async def test_so_is_one_whose_lease_was_taken_away(world: World) -> None:
    who, limits = world.login(), Limits()
    admission = await world.store.admit(who, limits, lease_seconds=25)
    live = await created(world, who)
    await world.store.revoke(ALICE, login=None, remember=DAY, reason="tenant_revoked", leases=True)
    with pytest.raises(LoginRevoked):
        await world.store.record(admission, live, limits)
    assert await world.queued(who) == [live.id]


async def test_a_session_that_others_must_give_way_to_can_be_revoked_though_nobody_lives_to_cancel_them(
    world: World,
) -> None:
    who, limits = world.login(), Limits(live=1, excess="cancel_oldest")
    older = await world.minted(who, limits)
    admission = await world.store.admit(who, limits, lease_seconds=25)
    live = await created(world, who)
    with pytest.raises(Crowded):
        await world.store.record(admission, live, limits)
    await world.log_out(who, everywhere=False, remember=DAY)
    assert [await world.status(each) for each in (older, live.id)] == ["cancelled", "cancelled"]


async def test_one_too_many_gives_way_with_the_next_mint(world: World) -> None:
    who, limits = world.login(), Limits(live=1, excess="cancel_oldest")
    older = await world.minted(who, limits)
    admission = await world.store.admit(who, limits, lease_seconds=25)
    live = await created(world, who)
    with pytest.raises(Crowded):
        await world.store.record(admission, live, limits)
    newest = await world.minted(who, limits)
    assert [await world.status(each) for each in (older, live.id, newest)] == ["cancelled", "cancelled", "active"]


async def test_who_gave_way_before_the_answer_is_no_lost_mint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    who, limits = world.login(), Limits(live=1, excess="cancel_oldest")
    await world.minted(who, limits)
    admission = await world.store.admit(who, limits, lease_seconds=25)
    live = await created(world, who)
    with pytest.raises(Crowded):
        await world.store.record(admission, live, limits)
    monkeypatch.setattr(world.canceller, "begin", lambda *_: None)
    await world.minted(who, limits)
    assert await world.store.record(admission, live, limits, listed=True) == []
    assert live.id in await world.queued(who)


async def test_a_lease_that_has_lapsed_keeps_nobody_listed(world: World, redis: Redis) -> None:
    who = world.login()
    await redis.set(ALICE.live, f"\n~lapsed|{int(world.clock()) - 5}|1")  # too young to be pruned
    await world.log_out(who, everywhere=False, remember=DAY)
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.due() == {}
