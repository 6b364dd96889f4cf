"""An issuer that is down, slow or talks nonsense: its known keys still verify, and nobody waits long."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from identity.parts import Checking, Issuer, by_issuer, settled, trust
from service.errors import IssuerUnavailable
from service.identity import fetch
from service.identity.keys import AHEAD, COOLDOWN, FRESH, HARD_MAX, RETRY
from service.principal import JwksUrl
from support.issuer import DISCOVERY, ELSEWHERE, JWKS, SPOILED

SLACK = 2.0
"""Seconds that a busy machine may add; well below what a hang or a drip takes."""
ENDLESS = ["drip", "hang"]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


async def test_known_key_verifies_while_the_issuer_is_down(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    token = issuer.signer.token()
    await checking.keys.warm({issuer.source})
    issuer.stop()
    waited = 0.0
    while waited < HARD_MAX - FRESH:
        checking.clock.jump(HARD_MAX / 12)
        waited += HARD_MAX / 12
        await checking.refreshed()
        if waited < HARD_MAX:
            assert await checking.outcome(token, trusts) == "acme/alice"
            assert not checking.keys.missing()
    checking.clock.jump(RETRY + 1)
    assert await checking.outcome(token, trusts) == "issuer_unavailable"
    assert checking.keys.missing() == [issuer.source]
    issuer.start()
    issuer.publish(issuer.signer)
    checking.clock.jump(RETRY + 1)
    assert await checking.outcome(token, trusts) == "acme/alice"
    assert not checking.keys.missing()


async def test_keys_older_than_the_hard_maximum_verify_nothing(
    checking: Checking, issuer: Issuer, short_bound: float
) -> None:
    del short_bound
    trusts = by_issuer(trust(issuer.url, issuer.source))
    await checking.keys.warm({issuer.source})
    issuer.fault("hang")
    checking.clock.jump(HARD_MAX - 1)
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    checking.clock.jump(2)
    assert checking.keys.missing() == [issuer.source]
    assert await checking.outcome(issuer.signer.token(), trusts) == "issuer_unavailable"
    # And they don't come back for the next one who asks.
    assert await checking.outcome(issuer.signer.token(), trusts) == "issuer_unavailable"


@pytest.mark.parametrize("fault", [*SPOILED, *ENDLESS])
async def test_bad_answer_keeps_the_old_keys(
    checking: Checking, issuer: Issuer, short_bound: float, fault: str
) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    old, new = issuer.signer, issuer.new_signer()
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    issuer.publish(new)
    issuer.fault(fault)
    checking.clock.jump(FRESH * AHEAD + 1)
    with within(short_bound + SLACK):
        await checking.refreshed()
    assert checking.refreshes("failed") == 1
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    assert await checking.outcome(new.token(), trusts) == "invalid_token"
    checking.clock.jump(COOLDOWN + 1)
    with within(short_bound + SLACK):
        assert await checking.outcome(new.token(), trusts) == "invalid_token"
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    assert issuer.asked(ELSEWHERE) == 0
    issuer.set(faults={})
    checking.clock.jump(RETRY + 1)
    await checking.refreshed()
    assert await checking.outcome(old.token(), trusts) == "invalid_token"
    assert await checking.outcome(new.token(), trusts) == "acme/alice"


@pytest.mark.parametrize("path", [JWKS, DISCOVERY])
@pytest.mark.parametrize("fault", [*SPOILED, *ENDLESS])
async def test_without_any_keys_a_bad_answer_is_503(
    checking: Checking, issuer: Issuer, short_bound: float, fault: str, path: str
) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.fault(fault, path)
    with within(short_bound + SLACK), pytest.raises(IssuerUnavailable) as refused:
        await checking.principal(issuer.signer.token(), trusts)
    assert refused.value.status == 503
    assert 1 <= (refused.value.retry_after or 0) <= RETRY
    assert issuer.asked(ELSEWHERE) == 0
    issuer.set(faults={})
    checking.clock.jump(RETRY + 0.1)
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"


async def test_without_any_keys_one_fetch_a_retry_time_however_many_ask(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.fault("error")
    token = issuer.signer.token()
    for fetches in (1, 2, 3):
        found = await asyncio.gather(*(checking.outcome(token, trusts) for _ in range(200)))
        assert set(found) == {"issuer_unavailable"}
        with within(SLACK):
            for _ in range(100):
                assert await checking.outcome(token, trusts) == "issuer_unavailable"
                await checking.refreshed()
        assert issuer.asked() == fetches
        with pytest.raises(IssuerUnavailable) as refused:
            await checking.principal(token, trusts)
        assert refused.value.retry_after == RETRY
        checking.clock.jump(RETRY + 0.1)


async def test_without_a_listener_refusing_is_quick(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.stop()
    with within(SLACK):
        found = await asyncio.gather(*(checking.outcome(issuer.signer.token(), trusts) for _ in range(50)))
    assert set(found) == {"issuer_unavailable"}
    assert checking.refreshes("failed") == 1


async def test_fetch_is_over_within_its_true_bound(checking: Checking, issuer: Issuer, other: Issuer) -> None:
    assert fetch.TIMEOUT == 5.0
    issuer.fault("drip")
    other.fault("hang")
    issuer.publish(*(issuer.new_signer() for _ in range(5)))  # over a thousand bytes, so over 20 s
    trusts = by_issuer(*(trust(each.url, each.source) for each in (issuer, other)))
    with within(fetch.TIMEOUT + SLACK):
        found = await asyncio.gather(*(checking.outcome(each.signer.token(), trusts) for each in (issuer, other)))
    assert found == ["issuer_unavailable", "issuer_unavailable"]


async def test_outage_of_one_issuer_never_delays_tokens_of_another(
    checking: Checking, issuer: Issuer, other: Issuer
) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source), trust(other.url, other.source, "globex"))
    issuer.fault("hang")
    stuck = [asyncio.create_task(checking.outcome(issuer.signer.token(), trusts)) for _ in range(50)]
    await settled(lambda: issuer.told()["hanging"])
    with within(SLACK):  # not even the first, which has to fetch
        assert await checking.outcome(other.signer.token(), trusts) == "globex/alice"
    for forced in range(3):
        new = other.new_signer()
        other.publish(new)
        checking.clock.jump(COOLDOWN + 1)
        with within(SLACK):
            found = await asyncio.gather(*(checking.outcome(new.token(), trusts) for _ in range(50)))
        assert set(found) == {"globex/alice"}
        assert other.asked() == 2 + forced
    assert issuer.told()["hanging"] == 1
    assert not any(task.done() for task in stuck)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_known_keys_verify_at_once_while_their_own_issuer_hangs(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    await checking.keys.warm({issuer.source})
    issuer.fault("hang")
    checking.clock.jump(COOLDOWN + 1)
    stuck = asyncio.create_task(checking.outcome(issuer.new_signer().token(), trusts))
    await settled(lambda: issuer.told()["hanging"])
    with within(SLACK):
        for _ in range(100):
            assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    assert not stuck.done()
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)


async def test_slow_issuer_is_waited_for(checking: Checking, issuer: Issuer) -> None:
    issuer.set(latency=0.3)
    trusts = by_issuer(trust(issuer.url, JwksUrl(issuer.url + JWKS)))
    found = await asyncio.gather(*(checking.outcome(issuer.signer.token(), trusts) for _ in range(20)))
    assert set(found) == {"acme/alice"}
    assert issuer.asked() == 1


async def test_issuer_that_restarts_is_reached_again(checking: Checking, issuer: Issuer) -> None:
    """A connection kept from before the restart is no reason to fail."""
    trusts = by_issuer(trust(issuer.url, issuer.source))
    await checking.keys.warm({issuer.source})
    issuer.stop()
    issuer.start()
    new = issuer.new_signer()
    issuer.publish(new)
    checking.clock.jump(COOLDOWN + 1)
    assert await checking.outcome(new.token(), trusts) == "acme/alice"
