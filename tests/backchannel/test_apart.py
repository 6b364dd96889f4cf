"""What a logout token must not do, and must not leave undone, where tenants, clocks and clients differ."""

import time

import pytest

from backchannel.parts import OWN_KEYS, Stack, accepted, is_in, is_out, later, unavailable
from service.store.records import UserKeys

pytestmark = pytest.mark.process


def test_a_token_without_exp_is_remembered_as_long_as_it_is_taken(stack: Stack) -> None:
    alice = stack.someone("noexp")
    token = stack.provider.logout_token(alice, exp=None, sid=None, iat=int(time.time()) - 640)
    answer = stack.post(token)
    if answer.status_code == 400:
        return  # Not taken at all is as good.
    new = alice.again(iat=later())
    session = new.minted()
    accepted(stack.post(token))
    assert new.live() == [session["id"]]


def test_a_strict_tenants_login_is_not_ended_by_what_a_lax_one_believes(stack: Stack) -> None:
    lax = stack.someone("lax", aud="mixed-app", org="lax")
    strict = stack.login("strict", lax.subject, lax.login, aud="mixed-app", org="strict")
    session = strict.minted()
    stack.logged_out(lax, aud="mixed-app", exp=None)
    is_out(lax)
    assert strict.live() == [session["id"]]
    is_in(strict)


def test_keys_that_one_tenant_believes_end_no_login_of_another(stack: Stack) -> None:
    alice = stack.someone()
    session = alice.minted()
    own = stack.login("own-keys", alice.subject, alice.login)
    stack.logged_out(own, key=OWN_KEYS.key, header={"kid": OWN_KEYS.kid})
    assert alice.live() == [session["id"]]
    is_in(alice)


def test_a_login_of_another_audience_goes_on(stack: Stack) -> None:
    alice = stack.someone()
    other = stack.login("globex", alice.subject, alice.login)
    session = other.minted()
    stack.logged_out(alice)
    assert other.live() == [session["id"]]
    is_in(other)


def test_a_jti_is_used_up_by_nobody_else(stack: Stack) -> None:
    alice = stack.someone()
    jti = f"jti-of-{alice.subject}"
    own = stack.someone("own-keys")
    stack.logged_out(own, key=OWN_KEYS.key, header={"kid": OWN_KEYS.kid}, jti=jti)
    stack.logged_out(alice, jti=jti)
    is_out(alice)


def test_an_event_told_to_each_client_ends_the_login_at_each(stack: Stack) -> None:
    alice = stack.someone()
    other = stack.login("globex", alice.subject, "another-sid")
    jti = f"jti-of-{alice.subject}"
    stack.logged_out(alice, jti=jti)
    stack.logged_out(other, jti=jti)
    is_out(alice)
    is_out(other)


def test_a_tenant_whose_keys_are_away_is_not_passed_over(stack: Stack) -> None:
    found = stack.someone("found", aud="down-app", org="found")
    token = stack.provider.logout_token(found, aud="down-app")
    unavailable(stack.post(token))
    is_out(found)


@pytest.mark.parametrize("sid", [True, False], ids=["tokens with sid", "tokens without"])
def test_a_token_of_an_issuer_whose_clock_is_ahead_does_not_outlive_the_logout(stack: Stack, sid: bool) -> None:
    alice = stack.someone(iat=later(10)) if sid else stack.someone(iat=later(10), sid=None)
    stack.logged_out(alice, iat=later(15), **({"sid": None} if sid else {}))
    is_out(alice)


def test_a_login_named_by_the_access_tokens_jti_is_ended(stack: Stack) -> None:
    alice = stack.someone("jti-login", jti="access-token-1")
    session = alice.minted()
    stack.logged_out(alice)
    assert alice.live() == []
    is_out(alice)
    stack.cancelled(session)


def test_a_user_is_logged_out_once(stack: Stack) -> None:
    alice = stack.someone()
    alice.minted()
    answer = stack.log_out(alice)
    accepted(answer)
    assert stack.service.line(answer)["logged_out_users"] == 1


def test_a_second_logout_lets_nobody_back_in(stack: Stack) -> None:
    """The issuer's clock is ahead; what is known of that is the latest token's, not the furthest ahead's."""
    first = stack.someone(sid=None, iat=later(20))
    second = stack.login("acme", first.subject, "unused", sid=None, iat=later(10))
    first.minted()
    second.minted()
    stack.logged_out(first)
    is_out(first)
    stack.logged_out(first)
    is_out(first)


def test_no_provider_logs_a_visitor_out(stack: Stack) -> None:
    visitor = stack.login("acme", "visitor:0123456789abcdef", "sid-1")
    stack.log_out(visitor, sid=None)
    with stack.redis.client() as redis:
        assert not redis.exists(UserKeys.of("acme", visitor.subject).fence)
