"""Without Redis nothing is handed out; with it back, all goes on without a restart."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from api.parts import eventually
from api.stack import Caller, Fragile, Upstream

pytestmark = pytest.mark.process

PATIENCE = 3.0
"""Seconds within which the caller hears of it."""
SLOW = 0.6
"""Seconds that the slow authority takes for each call."""


@pytest.fixture(params=["stopped", "frozen"])
def take_away(request: pytest.FixtureRequest, fragile: Fragile) -> Callable[[], None]:
    return fragile.redis.stop if request.param == "stopped" else fragile.redis.freeze


def refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert "client_secret" not in answer.text
    assert "ek_" not in answer.text


CALLS: dict[str, Callable[[Caller], httpx2.Response]] = {
    "mint": lambda caller: caller.mint(),
    "list": lambda caller: caller.get("/v1/chatkit/sessions"),
    "cancel": lambda caller: caller.cancel("cksess_1"),
    "log out": lambda caller: caller.log_out(),
    "log out everywhere": lambda caller: caller.log_out(everywhere=True),
}


def test_every_call_is_refused_in_time(fragile: Fragile, take_away: Callable[[], None], upstream: Upstream) -> None:
    alice = fragile.someone()
    session = alice.minted()
    take_away()

    def timed(call: Callable[[Caller], httpx2.Response]) -> tuple[httpx2.Response, float]:
        started = time.monotonic()
        return call(alice), time.monotonic() - started

    with ThreadPoolExecutor(len(CALLS)) as pool:
        results = list(pool.map(timed, CALLS.values()))
    for answer, took in results:
        refused(answer)
        assert took < PATIENCE
    assert [each["id"] for each in upstream.of(f"acme:{alice.subject}")] == [session["id"]]


def test_many_callers_at_once_hear_of_it_in_time_too(fragile: Fragile, take_away: Callable[[], None]) -> None:
    callers = [fragile.someone() for _ in range(80)]
    take_away()

    def timed(caller: Caller) -> tuple[httpx2.Response, float]:
        started = time.monotonic()
        return caller.mint(), time.monotonic() - started

    with ThreadPoolExecutor(len(callers)) as pool:
        results = list(pool.map(timed, callers))
    for answer, took in results:
        refused(answer)
        assert took < PATIENCE + 0.5


def test_redis_that_comes_back_needs_no_restart(fragile: Fragile) -> None:
    alice = fragile.someone()
    fragile.redis.stop()
    refused(alice.mint())
    fragile.redis.start()
    session = alice.minted()
    assert alice.live() == [session["id"]]
    assert alice.log_out().json() == {"cancelled": 1, "pending": 0}


def test_redis_that_was_frozen_knows_what_it_knew(fragile: Fragile) -> None:
    alice = fragile.someone()
    session = alice.minted()
    fragile.redis.freeze()
    refused(alice.mint())
    fragile.redis.thaw()
    assert eventually(lambda: alice.get("/v1/chatkit/sessions").status_code == 200)
    assert session["id"] in alice.live()
    assert alice.log_out().json()["pending"] == 0


def test_a_session_that_can_not_be_recorded_is_cancelled(
    fragile: Fragile, take_away: Callable[[], None], upstream: Upstream
) -> None:
    """Redis goes between create and record: no secret leaves that can't be revoked."""
    alice = fragile.someone("slow")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(alice.mint)
        eventually(lambda: fragile.redis.leases("slow"))
        take_away()
        started = time.monotonic()
        refused(minting.result())
    # The slow authority is asked twice, to create and to cancel; for the rest, the caller waits no longer than ever.
    assert time.monotonic() - started < PATIENCE + 2 * SLOW
    [session] = upstream.of(f"slow:{alice.subject}")
    assert session["status"] == "cancelled"


def test_a_redis_that_forgot_the_mint_is_no_redis_to_record_in(fragile: Fragile, upstream: Upstream) -> None:
    """One that came back empty may have lost a logout too."""
    alice = fragile.someone("slow")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(alice.mint)
        eventually(lambda: fragile.redis.leases("slow"))
        fragile.redis.stop()
        fragile.redis.start()
        refused(minting.result())
    [session] = upstream.of(f"slow:{alice.subject}")
    assert session["status"] == "cancelled"
    assert alice.live() == []


def test_a_session_that_was_cancelled_for_it_is_not_listed_later(fragile: Fragile, upstream: Upstream) -> None:
    """A frozen Redis executes what it was sent as soon as it goes on, also what nobody waits for any more."""
    fragile.someone().minted()  # so that Redis has every script
    alice = fragile.someone("slow")
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: alice.live(), range(100)))  # so that connections are open
        minting = pool.submit(alice.mint)
        eventually(lambda: fragile.redis.leases("slow"))
        fragile.redis.freeze()
        refused(minting.result())
    fragile.redis.thaw()
    eventually(lambda: alice.get("/v1/chatkit/sessions").status_code == 200)
    [session] = upstream.of(f"slow:{alice.subject}")
    assert session["status"] == "cancelled"
    eventually(lambda: alice.live() == [], within=3)


def test_redis_is_named_in_readyz_and_livez_does_not_ask(fragile: Fragile, take_away: Callable[[], None]) -> None:
    assert fragile.service.ops("/readyz").json()["status"] == "ready"
    take_away()
    started = time.monotonic()
    answer = fragile.service.ops("/readyz")
    assert time.monotonic() - started < PATIENCE
    assert (answer.status_code, answer.json()["status"]) == (503, "unready")
    checks = answer.json()["checks"]
    assert checks["redis"]["ok"] is False
    assert checks["redis"]["reason"]
    assert {name for name, check in checks.items() if not check["ok"]} == {"redis"}
    assert fragile.service.ops("/livez").status_code == 200
    assert fragile.service.ops("/metrics").status_code == 200
