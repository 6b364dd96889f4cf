"""How many mints of a tenant are under way at once, and what one costs of which upstream was never asked."""

import asyncio

import pytest

from service.errors import Overloaded, RateLimited, TooManyLiveSessions, UpstreamUnavailable
from service.session import Account, Limits, Window
from support.world import World


async def test_past_its_bound_a_tenant_is_refused_and_others_are_not(world: World) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(minted: object) -> None:
        if minted.session.user == "acme:alice":  # type: ignore[attr-defined]
            asked.set()
            await go_on.wait()

    world.accounts["acme"] = Account("acme", "authority", max_concurrent=1)
    world.upstream.before_answer = wait
    first = asyncio.create_task(world.minted(world.login()))
    await asked.wait()
    with pytest.raises(Overloaded):
        await world.minted(world.login())
    assert world.count("mints", tenant="acme", outcome="overloaded") == 1
    await world.mint(world.login(tenant="globex"), world.grant("globex"))
    go_on.set()
    await first
    await world.minted(world.login())


async def test_a_refused_mint_gives_its_place_back(world: World) -> None:
    """Refused by any limit, by upstream, by a defect, or left by its caller before it was admitted."""
    world.accounts["acme"] = Account("acme", "authority", max_concurrent=1)
    once = (Window(1, 60),)
    await world.minted(world.login(), Limits(mints=once, tenant_mints=once))
    for limits in (Limits(mints=once), Limits(tenant_mints=once), Limits(live=1)):
        with pytest.raises((RateLimited, TooManyLiveSessions)):
            await world.minted(world.login(), limits)
    for error in (UpstreamUnavailable("down"), ValueError("a defect")):
        world.upstream.create_raises = error
        with pytest.raises(type(error)):
            await world.minted(world.login(subject="bob"))
    world.upstream.create_raises = None
    leaving = asyncio.create_task(world.mint(world.login(), world.grant()))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await world.minted(world.login())
    assert not world.mint._under_way  # and tenants that come and go leave nothing behind


@pytest.mark.parametrize(("asked", "more"), [(False, 1), (True, 0)])
async def test_a_mint_of_which_upstream_was_not_asked_uses_up_no_limit(world: World, asked: bool, more: int) -> None:
    limits = Limits(mints=(Window(1, 60),), live=1)
    world.upstream.create_raises = UpstreamUnavailable("down", asked=asked)
    with pytest.raises(UpstreamUnavailable):
        await world.minted(world.login(), limits)
    world.upstream.create_raises = None
    results = [await asyncio.gather(world.minted(world.login(), limits), return_exceptions=True) for _ in range(2)]
    assert sum(isinstance(result, str) for (result,) in results) == more
