"""A tenant is revoked: blocked first, then every session of it cancelled, whoever carries it on."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.errors import Conflict, LoginRevoked, TenantBlocked
from service.principal import Principal
from service.sessions.revoke import Standing
from service.store.records import UserKeys
from service.store.revocations import Progress
from support.world import World, names

QUICK = 10_000.0
"""Cancels a second."""


def progress(standing: Standing) -> Progress:
    assert standing.progress is not None
    return standing.progress


async def crowd(world: World, count: int, tenant: str = "acme") -> list[tuple[Principal, str]]:
    found = []
    for number in range(count):
        who = world.login(f"sid-{number}", tenant=tenant, subject=f"user-{number}")
        found.append((who, await world.minted(who)))
    return found


async def swept(world: World, tenant: str = "acme", rounds: int = 200) -> Progress:
    """Carry the revocation on until it is done."""
    told = progress(await world.revoke.standing(tenant))
    while told.state != "done":
        assert (rounds := rounds - 1), f"still {told}"
        await world.revoke.once()
        await world.sweeper.once()
        await asyncio.sleep(0.01)
        told = progress(await world.revoke.standing(tenant))
    return told


async def test_every_session_is_cancelled_and_counted(world: World) -> None:
    users = await crowd(world, 30)
    begun = await world.revoke.begin("acme", rate=QUICK)
    assert (progress(begun).state, begun.users) == ("fencing", 30)
    told = await swept(world)
    assert (told.sessions, told.cancelled, told.failed, told.remaining) == (30, 30, 0, 0)
    assert told.finished_at is not None
    assert {await world.status(session) for _, session in users} == {"cancelled"}
    assert await world.redis.smembers("cm:revocations") == set()


async def test_nobody_mints_while_it_is_blocked_and_it_costs_nobody_anything(world: World) -> None:
    await world.revoke.begin("acme", rate=QUICK)
    who = world.login("new", subject="newcomer", issued_at=world.clock() + 5)
    with pytest.raises(TenantBlocked):
        await world.minted(who)
    assert await names(world.redis, UserKeys.of("acme", "newcomer")) == ["^"]  # the mark of a token from the future
    await world.minted(world.login(tenant="globex"))


async def test_after_unblock_new_logins_mint_and_old_ones_never_again(world: World) -> None:
    silent = world.login("silent", subject="never minted", issued_at=world.clock() - 5)
    ((who, _),) = await crowd(world, 1)
    await world.revoke.begin("acme", rate=QUICK)
    await swept(world)
    assert await world.revoke.unblock("acme")
    assert not await world.revoke.unblock("acme")
    for old in (who, silent):
        with pytest.raises(LoginRevoked):
            await world.minted(old)
    await world.minted(world.login("new", subject=who.subject, issued_at=world.clock() + 1))


async def test_another_tenants_sessions_live_on(world: World) -> None:
    ((_, kept),) = await crowd(world, 1, tenant="globex")
    await crowd(world, 3)
    await world.revoke.begin("acme", rate=QUICK)
    await swept(world)
    assert await world.status(kept) == "active"


async def test_a_mint_under_way_is_cancelled_even_with_a_token_from_the_future(world: World) -> None:
    who = world.login("ahead", issued_at=world.clock() + 20)
    seen = []

    async def revoked(minted: object) -> None:
        seen.append(minted.session.id)  # type: ignore[attr-defined]
        await world.revoke.begin("acme", rate=QUICK)
        await world.revoke.once()

    world.upstream.before_answer = revoked
    with pytest.raises(LoginRevoked):
        await world.minted(who)
    assert await world.status(seen[0]) == "cancelled"


async def test_another_replica_goes_on_where_one_stopped(world: World, redis: Redis) -> None:
    users = await crowd(world, 10)
    await world.revoke.begin("acme", rate=QUICK)
    # Stopped between two users: one is fenced, and still on the list.
    first = UserKeys.of("acme", users[0][0].subject)
    await world.revoke._fence_user(first, 0.0)
    other = World(redis)
    await other.revoke.once()
    assert progress(await other.revoke.standing("acme")).sessions == 10
    told = await swept(other)
    assert (told.sessions, told.cancelled, told.failed) == (10, 10, 0)


async def test_one_replica_at_a_time_carries_it_on(world: World, redis: Redis) -> None:
    await crowd(world, 2)
    await world.revoke.begin("acme", rate=QUICK)
    assert await world.revoke._revocations.take_turn("acme", "somebody else")
    await world.revoke.once()
    assert progress(await world.revoke.standing("acme")).state == "fencing"
    await redis.delete("cm:revocation:{acme}:lock")  # silent for longer than its turn
    await world.revoke.once()
    assert progress(await world.revoke.standing("acme")).state == "cancelling"


async def test_what_upstream_does_not_confirm_remains_until_it_does(world: World) -> None:
    users = await crowd(world, 3)
    world.upstream.cancels_fail.add("acme")
    await world.revoke.begin("acme", rate=QUICK)
    await world.revoke.once()
    await world.sweeper.once()
    await world.revoke.once()
    told = progress(await world.revoke.standing("acme"))
    assert (told.state, told.cancelled, told.remaining) == ("cancelling", 0, 3)
    world.upstream.cancels_fail.clear()
    for who, _ in users:
        await world.make_due(who)
    told = await swept(world)
    assert (told.cancelled, told.failed) == (3, 0)


async def test_what_ended_by_itself_counts_as_failed(redis: Redis) -> None:
    world = World(redis)
    users = await crowd(world, 2)
    world.upstream.cancels_fail.add("acme")
    await world.revoke.begin("acme", rate=QUICK)
    await world.revoke.once()
    later = World(redis, clock=lambda: world.clock() + 700)
    for who, _ in users:
        await later.make_due(who)
    await redis.delete("cm:revocation:{acme}:lock")
    told = await swept(later)
    assert (told.sessions, told.cancelled, told.failed, told.remaining) == (2, 0, 2, 0)


async def test_the_rate_spreads_the_cancels(world: World) -> None:
    await crowd(world, 40)
    await world.revoke.begin("acme", rate=10.0)
    await world.revoke.once()
    times = sorted((await world.due()).values())
    assert len(times) == 40
    # Users are fenced side by side, so the spread is by groups; the last is due near its turn.
    assert times[-1] - times[0] > 1000


async def test_unblock_waits_until_every_user_is_fenced(world: World) -> None:
    await crowd(world, 1)
    await world.revoke.begin("acme", rate=QUICK)
    with pytest.raises(Conflict):
        await world.revoke.unblock("acme")
    await world.revoke.once()
    assert await world.revoke.unblock("acme")


async def test_a_second_revocation_starts_anew(world: World) -> None:
    await crowd(world, 2)
    await world.revoke.begin("acme", rate=QUICK)
    again = await world.revoke.begin("acme", rate=1.0)
    assert progress(again).rate == QUICK  # it is under way: nothing starts over
    await swept(world)
    await world.revoke.unblock("acme")
    who = world.login("new", issued_at=world.clock() + 1)
    await world.minted(who)
    await world.revoke.begin("acme", rate=QUICK)
    told = await swept(world)
    assert (told.sessions, told.cancelled) == (1, 1)
