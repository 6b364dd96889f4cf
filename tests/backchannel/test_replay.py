"""A logout token has its effect once: sent again, it is answered 200 and does nothing."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backchannel.parts import Stack, accepted, is_in, is_out, later

pytestmark = pytest.mark.process


@pytest.mark.parametrize("form", [{}, {"sub": None}, {"sid": None}])
def test_no_effect_on_a_newer_login(stack: Stack, form: dict[str, Any]) -> None:
    alice = stack.someone()
    token = stack.provider.logout_token(alice, **form)
    accepted(stack.post(token))
    is_out(alice)
    new = alice.again(iat=later())
    session = new.minted()
    accepted(stack.post(token))
    assert stack.status(session) == "active"
    assert new.live() == [session["id"]]
    is_in(new)
    is_out(alice)


def test_the_log_tells_a_replay(stack: Stack) -> None:
    alice = stack.someone()
    token = stack.provider.logout_token(alice)
    first, second = stack.post(token), stack.post(token)
    assert "logout_token" not in stack.service.line(first)
    assert stack.service.line(second)["logout_token"] == "had its effect already"


def test_a_token_signed_anew_with_the_same_jti_is_a_replay(stack: Stack) -> None:
    alice = stack.someone()
    stack.logged_out(alice, sid=None, jti=f"jti-of-{alice.subject}")
    new = alice.again(iat=later())
    stack.logged_out(alice, sid=None, jti=f"jti-of-{alice.subject}", exp=later(60))
    is_in(new)


def test_a_second_logout_is_no_replay(stack: Stack) -> None:
    alice = stack.someone()
    stack.logged_out(alice, sid=None)
    new = alice.again(iat=later())
    session = new.minted()
    stack.logged_out(new)
    is_out(new)
    stack.cancelled(session)


def test_the_effect_is_remembered_as_long_as_the_token_can_be_used(stack: Stack) -> None:
    alice = stack.someone("patient")
    before = dict.fromkeys(_marks(stack), 0)
    now = int(time.time())
    stack.logged_out(alice, iat=now - 100, exp=now + 200)
    [ends] = [left for key, left in _marks(stack).items() if key not in before]
    assert 499 <= ends < 700  # its exp and the leeway, and no more than clocks may differ


def test_the_same_token_many_times_at_once_is_answered_well(stack: Stack) -> None:
    alice = stack.someone()
    session = alice.minted()
    token = stack.provider.logout_token(alice)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(stack.post, [token] * 16):
            accepted(answer)
    is_out(alice)
    stack.cancelled(session)


@pytest.mark.parametrize("form", [{}, {"sub": None}, {"sid": None}])
def test_a_logout_outlives_every_token_that_it_ends(stack: Stack, form: dict[str, Any]) -> None:
    """A token is taken until it is older than `max_age`, give or take the leeway; so long the marks must stand."""
    alice = stack.someone("patient")
    alice.minted()
    before = _lives(stack)
    stack.logged_out(alice, **form)
    grown = [left for key, left in _lives(stack).items() if left > before.get(key, 0) + 1]
    assert len(grown) == (1 if form == {"sid": None} else 2)  # the user's fence, and the login's mark
    assert min(grown) >= 3600 + 2 * 300 - 1


def _marks(stack: Stack) -> dict[bytes, float]:
    with stack.redis.client() as redis:
        return {key: redis.pttl(key) / 1000 for key in redis.scan_iter("cm:jti:*")}


def _lives(stack: Stack) -> dict[bytes, int]:
    with stack.redis.client() as redis:
        keys = [*redis.scan_iter("cm:tenant:{patient:*}:ended:*"), *redis.scan_iter("cm:{patient:*}:fence")]
        return {key: redis.ttl(key) for key in keys}
