"""After a logout nothing stays alive that we know of."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from service.errors import LoginRevoked, NotFound, UpstreamUnavailable
from service.store.queue import LISTED_FOR
from service.store.records import UserKeys, login_mark
from support.world import DAY, World


async def test_every_session_of_the_login_is_cancelled_upstream(world: World) -> None:
    who = world.login()
    ids = [await world.minted(who) for _ in range(3)]
    report = await world.log_out(who, everywhere=False, remember=DAY)
    assert (report.cancelled, report.pending) == (3, 0)
    assert {await world.status(each) for each in ids} == {"cancelled"}


async def test_another_login_of_the_user_goes_on(world: World) -> None:
    kept = await world.minted(world.login("sid-2"))
    await world.minted(world.login("sid-1"))
    await world.log_out(world.login("sid-1"), everywhere=False, remember=DAY)
    assert await world.status(kept) == "active"
    await world.minted(world.login("sid-2"))


async def test_a_logged_out_login_mints_no_more_and_a_new_one_does_at_once(world: World) -> None:
    who = world.login("sid-1")
    await world.log_out(who, everywhere=False, remember=DAY)
    with pytest.raises(LoginRevoked):
        await world.minted(who)
    await world.minted(world.login("sid-2", issued_at=who.issued_at))


async def test_everywhere_ends_every_login_that_came_before(world: World) -> None:
    first, second = world.login("sid-1"), world.login("sid-2")
    ids = [await world.minted(first), await world.minted(second)]
    await world.log_out(first, everywhere=True, remember=DAY)
    assert {await world.status(each) for each in ids} == {"cancelled"}
    for who in (first, second):
        with pytest.raises(LoginRevoked):
            await world.minted(who)
    await world.minted(world.login("sid-3", issued_at=world.clock() + 2))


async def test_tokens_without_a_login_are_fenced_by_their_time(world: World) -> None:
    who = world.login(None)
    session = await world.minted(who)
    await world.log_out(who, everywhere=False, remember=DAY)
    assert await world.status(session) == "cancelled"
    with pytest.raises(LoginRevoked):
        await world.minted(who)


async def test_a_mint_under_way_during_a_logout_is_cancelled_and_refused(world: World) -> None:
    who, seen = world.login(), []

    async def log_out_meanwhile(minted: object) -> None:
        seen.append(minted)
        await world.log_out(who, everywhere=False, remember=DAY)

    world.upstream.before_answer = log_out_meanwhile
    with pytest.raises(LoginRevoked, match="record"):
        await world.minted(who)
    assert await world.status(seen[0].session.id) == "cancelled"  # type: ignore[attr-defined]
    assert await world.store.live(UserKeys.of("acme", "alice"), now=world.clock()) == []


async def test_what_upstream_does_not_confirm_is_pending_and_swept_later(world: World) -> None:
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    report = await world.log_out(who, everywhere=False, remember=DAY)
    assert (report.cancelled, report.pending) == (0, 1)
    world.upstream.cancels_fail.clear()
    await world.make_due(who)
    assert await world.sweeper.once() == 1
    assert await world.status(session) == "cancelled"
    assert await world.queued(who) == []
    assert await world.due() == {}


async def test_a_pending_cancel_survives_an_unknown_cancel_of_the_same_user(world: World) -> None:
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(who, everywhere=False, remember=DAY)
    with pytest.raises(NotFound):
        await world.log_out.one(who, "cksess_nonsense")
    world.upstream.cancels_fail.clear()
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.status(session) == "cancelled"


async def test_a_pending_cancel_survives_the_logout_of_another_login(world: World) -> None:
    first, second = world.login("sid-1"), world.login("sid-2")
    stuck = await world.minted(first)
    world.upstream.cancels_fail.add("acme")
    await world.log_out(first, everywhere=False, remember=DAY)
    world.upstream.cancels_fail.clear()
    await world.minted(second)
    await world.log_out(second, everywhere=False, remember=DAY)
    assert world.login().tenant + ":" in next(iter(await world.due()))
    await world.make_due(first)
    await world.sweeper.once()
    assert await world.status(stuck) == "cancelled"


async def test_the_fence_never_moves_back(world: World) -> None:
    ahead, behind = world.login(None, issued_at=world.clock() + 25), world.login(None)
    await world.log_out(ahead, everywhere=True, remember=DAY)
    await world.log_out(behind, everywhere=True, remember=DAY)
    with pytest.raises(LoginRevoked):
        await world.minted(ahead)


async def test_a_token_from_a_clock_ahead_is_fenced_by_anothers_logout(world: World) -> None:
    ahead = world.login("sid-1", issued_at=world.clock() + 10)
    await world.log_out.one(ahead, await world.minted(ahead))
    await world.log_out.user("acme", "alice", remember=DAY)
    with pytest.raises(LoginRevoked):
        await world.minted(ahead)


async def test_logins_are_told_apart_whatever_is_in_their_names(world: World) -> None:
    names = ["a|b", "a%7Cb", "a%257Cb", "*", "s", "a\nb", "ü😀", "^", "~"]
    ids = {name: await world.minted(world.login(name)) for name in names}
    for gone in names[:4]:
        await world.log_out(world.login(gone), everywhere=False, remember=DAY)
    statuses = {name: await world.status(each) for name, each in ids.items()}
    assert statuses == {name: "cancelled" if name in names[:4] else "active" for name in names}


async def test_users_and_tenants_are_told_apart(world: World) -> None:
    mine = await world.minted(world.login())
    others = [
        await world.minted(world.login(subject="bob")),
        await world.minted(world.login(tenant="globex")),
        await world.minted(world.login(subject="alice}:live")),
    ]
    await world.log_out(world.login(), everywhere=True, remember=DAY)
    assert await world.status(mine) == "cancelled"
    assert {await world.status(each) for each in others} == {"active"}


async def test_a_single_session_is_cancelled_and_then_unknown(world: World) -> None:
    who = world.login()
    session, kept = await world.minted(who), await world.minted(who)
    cancelled = await world.log_out.one(who, session)
    assert (cancelled.id, cancelled.status) == (session, "cancelled")
    assert await world.status(kept) == "active"
    with pytest.raises(NotFound):
        await world.log_out.one(who, session)
    with pytest.raises(NotFound):
        await world.log_out.one(world.login(subject="bob"), kept)


async def test_an_unconfirmed_cancel_of_one_says_so_and_can_be_asked_again(world: World) -> None:
    who = world.login()
    session = await world.minted(who)
    world.upstream.cancels_fail.add("acme")
    with pytest.raises(UpstreamUnavailable):
        await world.log_out.one(who, session)
    world.upstream.cancels_fail.clear()
    assert (await world.log_out.one(who, session)).status == "cancelled"


async def test_a_lease_can_not_be_named_as_a_session(world: World) -> None:
    who = world.login()
    admission = await world.store.admit(who, world.grant().limits, lease_seconds=30)
    with pytest.raises(NotFound):
        await world.log_out.one(who, admission.lease)


async def test_a_tenant_that_moved_keeps_its_cancels_pending_rather_than_asking_elsewhere(world: World) -> None:
    who = world.login()
    session = await world.minted(who)
    world.accounts["acme"] = replace(world.account(), project="another")
    report = await world.log_out(who, everywhere=False, remember=DAY)
    assert (report.cancelled, report.pending) == (0, 1)
    assert await world.status(session) == "active"
    del world.accounts["acme"]
    await world.make_due(who)
    await world.sweeper.once()
    assert await world.status(session) == "cancelled"


async def test_old_fences_are_forgotten_and_young_ones_are_not(world: World, redis: Redis) -> None:
    keys = UserKeys.of("acme", "alice")
    await redis.hset(keys.fence, mapping={f"s{login_mark('old')}": int(world.clock() - 2 * DAY)})
    await world.log_out(world.login("young"), everywhere=False, remember=DAY)
    await world.log_out(world.login("younger"), everywhere=False, remember=DAY)
    assert set(await redis.hkeys(keys.fence)) == {f"s{login_mark(name)}".encode() for name in ("young", "younger")}
    assert DAY - 5 < await redis.ttl(keys.fence) <= DAY + 2


def test_a_claim_is_not_taken_before_what_was_listed_is_queued() -> None:
    """A sweeper must not look at a user between its listing and its queueing."""
    assert LISTED_FOR > 2 * 2 * 1.0  # twice Redis's default deadline, with its one retry
