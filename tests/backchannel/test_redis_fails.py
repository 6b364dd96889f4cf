"""A logout that can't be made durable is not answered 200; sent again, it has all of its effect."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.parts import SERVICE_DB, RedisServer, eventually
from api.stack import Caller, Service, Upstream
from backchannel.parts import Provider, Stack, accepted, is_in, is_out, unavailable
from service.store.records import UserKeys

pytestmark = pytest.mark.process

PATIENCE = 3.0
"""Seconds within which the provider hears of it; a step of Redis may take one."""


@pytest.fixture(scope="module")
def fragile_stack(config: Path, whole_stack: Stack, home: Path) -> Iterator[Stack]:
    redis = RedisServer(home / "fragile-redis")
    url = redis.url(SERVICE_DB)
    service = Service(home / "fragile.log", config, url, CHATKIT_MINT_REDIS_TIMEOUT="1.0")
    try:
        yield Stack(service.wait(), redis, Provider(whole_stack.provider.issuer), Upstream(url))
    finally:
        service.close()
        redis.stop()


@pytest.fixture
def fragile(fragile_stack: Stack) -> Iterator[Stack]:
    """Whole at the beginning; a Redis that was stopped has forgotten everything."""
    yield fragile_stack
    fragile_stack.redis.stop()
    fragile_stack.redis.start()


@pytest.fixture
def spoiled(stack: Stack) -> Iterator[Callable[[Caller], Any]]:
    """Put something in the place of a user's fence that no fence can be: Redis answers, and that one step fails."""
    with stack.redis.client() as redis:

        def spoil(who: Caller) -> Callable[[], object]:
            fence = UserKeys.of(who.tenant, who.subject).fence
            redis.set(fence, "no hash")
            return lambda: redis.delete(fence)

        yield spoil


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_redis_the_provider_is_told_quickly(fragile: Stack, how: str) -> None:
    alice = fragile.someone()
    alice.minted()
    token = fragile.provider.logout_token(alice)
    (fragile.redis.stop if how == "stopped" else fragile.redis.freeze)()
    started = time.monotonic()
    unavailable(fragile.post(token))
    assert time.monotonic() - started < PATIENCE
    # What is wrong with a token is no matter of Redis.
    assert fragile.log_out(alice, exp=None).status_code == 400


def test_redis_that_comes_back_needs_no_restart(fragile: Stack) -> None:
    alice = fragile.someone()
    token = fragile.provider.logout_token(alice)
    fragile.redis.stop()
    unavailable(fragile.post(token))
    fragile.redis.start()
    session = alice.minted()
    accepted(fragile.post(token))
    is_out(alice)
    fragile.cancelled(session)


def test_frozen_half_way_it_is_done_when_sent_again(fragile: Stack) -> None:
    alice = fragile.someone()
    session = alice.minted()
    token = fragile.provider.logout_token(alice)
    fragile.redis.freeze()
    unavailable(fragile.post(token))
    fragile.redis.thaw()
    eventually(lambda: fragile.post(token).status_code == 200)
    is_out(alice)
    fragile.cancelled(session)


@pytest.mark.parametrize("form", [{}, {"sub": None}, {"sid": None}])
def test_failed_half_way_it_has_its_effect_when_sent_again(
    stack: Stack, spoiled: Callable[[Caller], Any], form: dict[str, Any]
) -> None:
    alice = stack.someone()
    session = alice.minted()
    token = stack.provider.logout_token(alice, **form)
    mend = spoiled(alice)
    unavailable(stack.post(token))
    unavailable(stack.post(token))
    assert stack.status(session) == "active"
    mend()
    accepted(stack.post(token))
    is_out(alice)
    stack.cancelled(session)


def test_one_tenants_trouble_is_told_and_the_others_are_logged_out(
    stack: Stack, spoiled: Callable[[Caller], Any]
) -> None:
    north = stack.someone("north", aud="shared-app", org="north")
    south = stack.login("south", north.subject, north.login, aud="shared-app", org="south")
    token = stack.provider.logout_token(north, aud="shared-app", sid=None)
    mend = spoiled(north)
    unavailable(stack.post(token))
    eventually(lambda: south.mint().status_code == 401)
    mend()
    is_in(north)
    accepted(stack.post(token))
    is_out(north)


def test_a_login_is_fenced_before_its_users_are(stack: Stack, spoiled: Callable[[Caller], Any]) -> None:
    """The mark that all see comes first: what fails after it leaves nobody a way in."""
    alice = stack.someone()
    mend = spoiled(alice)
    unavailable(stack.log_out(alice))
    mend()
    is_out(alice)
