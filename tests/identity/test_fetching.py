"""When keys are fetched, how often, and what becomes of a fetch that nobody wants any more."""

import asyncio
import json

import pytest

from identity.parts import Checking, Issuer, by_issuer, settled, trust
from service.identity import keys
from service.identity.fetch import TIMEOUT
from service.identity.keys import AHEAD, COOLDOWN, FRESH, MAX_FRESH, MIN_FRESH, RETRY
from service.principal import InlineJwks, KeySource
from support.issuer import DISCOVERY, JWKS
from support.tokens import Signer

FORGED = 1000


def forged(issuer: Issuer, count: int = FORGED) -> list[str]:
    """Tokens of no known key, each with a `kid` of its own."""
    signer = Signer(issuer.url)
    return [signer.token(headers={"kid": f"unknown-{number}"}) for number in range(count)]


async def test_one_fetch_for_all_first_requests(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.set(latency=0.1)
    token = issuer.signer.token()
    assert set(await asyncio.gather(*(checking.outcome(token, trusts) for _ in range(200)))) == {"acme/alice"}
    assert (issuer.asked(DISCOVERY), issuer.asked(JWKS)) == (1, 1)


@pytest.mark.parametrize("warm", [True, False])
async def test_unknown_kids_at_once_cause_one_fetch_a_cooldown(checking: Checking, issuer: Issuer, warm: bool) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    if warm:
        await checking.keys.warm({issuer.source})
    tokens = forged(issuer)
    for cooldown in (1, 2, 3):
        assert set(await asyncio.gather(*(checking.outcome(token, trusts) for token in tokens))) == {"invalid_token"}
        assert issuer.asked() == cooldown
        checking.clock.jump(COOLDOWN + 1)


@pytest.mark.parametrize("fault", [None, "error", "empty set"])
async def test_unknown_kids_one_by_one_cause_one_fetch_a_cooldown(
    checking: Checking, issuer: Issuer, fault: str | None
) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    await checking.keys.warm({issuer.source})
    if fault:
        issuer.fault(fault)
    checking.clock.jump(COOLDOWN + 1)
    for token in forged(issuer):
        assert await checking.outcome(token, trusts) == "invalid_token"
        checking.clock.jump((COOLDOWN - 1) / FORGED)
    assert issuer.asked() == 2
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"


async def test_caller_who_leaves_takes_no_fetch_along(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.set(latency=0.2)
    first, second = (asyncio.create_task(checking.outcome(issuer.signer.token(), trusts)) for _ in range(2))
    await settled(lambda: issuer.asked(DISCOVERY))
    first.cancel()
    assert await second == "acme/alice"
    assert issuer.asked() == 1


@pytest.mark.parametrize(("max_age", "fresh"), [(None, FRESH), (900, 900), (1, MIN_FRESH), (10**8, MAX_FRESH)])
async def test_keys_are_fetched_ahead_of_their_expiry_though_nobody_asks(
    checking: Checking, issuer: Issuer, max_age: int | None, fresh: float
) -> None:
    issuer.set(max_age=max_age)
    await checking.keys.warm({issuer.source})
    checking.clock.jump(fresh * AHEAD - 1)
    await checking.refreshed()
    assert issuer.asked() == 1
    checking.clock.jump(2)
    await checking.refreshed()
    await checking.refreshed()
    assert issuer.asked() == 2
    issuer.fault("error")
    checking.clock.jump(fresh)
    for _ in range(3):
        await checking.refreshed()
    assert issuer.asked() == 3
    checking.clock.jump(RETRY + 1)
    await checking.refreshed()
    assert issuer.asked() == 4


async def test_background_task_refreshes_by_itself(
    checking: Checking, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ROUND", 0.01)
    await checking.keys.warm({issuer.source})
    new = issuer.new_signer()
    issuer.publish(new)
    background = asyncio.create_task(checking.keys.run())
    checking.clock.jump(FRESH * AHEAD + 1)
    await settled(lambda: checking.refreshes("ok") == 2)
    issuer.fault("garbage")
    checking.clock.jump(FRESH)
    await settled(lambda: checking.refreshes("failed"))
    assert not background.done()
    background.cancel()
    await asyncio.gather(background, return_exceptions=True)
    assert await checking.outcome(new.token(), by_issuer(trust(issuer.url, issuer.source))) == "acme/alice"


async def test_static_keys_are_never_fetched_anew(checking: Checking, issuer: Issuer) -> None:
    source = InlineJwks(json.dumps(issuer.signer.jwks))
    trusts = by_issuer(trust(issuer.url, source))
    for _ in range(3):
        assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
        assert await checking.outcome(forged(issuer, 1)[0], trusts) == "invalid_token"
        checking.clock.jump(10**9)
        await checking.refreshed()
    assert checking.refreshes("ok") == 1
    assert issuer.told()["asked"] == {}


async def test_sources_that_no_policy_names_are_dropped(checking: Checking, issuer: Issuer, other: Issuer) -> None:
    sources: set[KeySource] = {issuer.source, other.source}
    await checking.keys.warm(sources)
    await checking.keys.warm({issuer.source})
    assert (issuer.asked(), other.asked()) == (1, 1)
    checking.clock.jump(FRESH)
    await checking.refreshed()
    assert (issuer.asked(), other.asked()) == (2, 1)
    assert checking.keys.missing() == []


async def test_dropping_a_source_ends_its_fetch_and_cancels_nobody(
    checking: Checking, issuer: Issuer, other: Issuer
) -> None:
    """A request under way when its source is dropped gets an answer, not a cancellation out of nowhere."""
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.fault("hang")
    waiting = asyncio.create_task(checking.outcome(issuer.signer.token(), trusts))
    await settled(lambda: issuer.told()["hanging"])
    await checking.keys.warm({other.source})
    await settled(lambda: not issuer.told()["hanging"], within=TIMEOUT / 2)
    await asyncio.wait([waiting])
    assert not waiting.cancelled()
    assert waiting.result() == "issuer_unavailable"


async def test_closing_leaves_no_task(checking: Checking, issuer: Issuer, other: Issuer) -> None:
    issuer.fault("hang")
    other.fault("hang")
    sources: list[KeySource] = [issuer.source, other.source]
    warming = asyncio.create_task(checking.keys.warm(sources))
    await settled(lambda: issuer.told()["hanging"] and other.told()["hanging"])
    warming.cancel()
    await asyncio.gather(warming, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 3
    await checking.keys.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await settled(lambda: not issuer.told()["hanging"] and not other.told()["hanging"], within=TIMEOUT / 2)
