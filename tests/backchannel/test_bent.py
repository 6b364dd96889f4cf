"""Providers that bend the specification are let in by their own switch, one each, and no further."""

import time
from typing import Any

import pytest

from backchannel.parts import Stack, is_in, is_out, refused

pytestmark = pytest.mark.process


def test_without_exp_where_that_is_allowed(stack: Stack) -> None:
    alice = stack.someone("noexp")
    session = alice.minted()
    stack.logged_out(alice, exp=None)
    is_out(alice)
    stack.cancelled(session)


def test_without_exp_a_token_is_good_for_ten_minutes(stack: Stack) -> None:
    alice = stack.someone("noexp")
    refused(stack.log_out(alice, exp=None, iat=int(time.time()) - 661))
    is_in(alice)
    stack.logged_out(alice, exp=None, iat=int(time.time()) - 590)
    is_out(alice)


def test_an_exp_that_is_there_counts_where_it_may_be_missing(stack: Stack) -> None:
    alice = stack.someone("noexp")
    for exp in (int(time.time()) - 31, "soon", True):
        refused(stack.log_out(alice, exp=exp))
    is_in(alice)


@pytest.mark.parametrize("typ", [None, "", "JWT", "jwt", "application/jwt", "logout+jwt", "application/logout+jwt"])
def test_without_typ_where_that_is_allowed(stack: Stack, typ: str | None) -> None:
    alice = stack.someone("notyp")
    stack.logged_out(alice, header={"typ": typ})
    is_out(alice)


@pytest.mark.parametrize("typ", ["at+jwt", "secevent+jwt", "logout", 7, ["logout+jwt"], {}, True, 0])
def test_another_typ_is_never_allowed(stack: Stack, typ: Any) -> None:
    alice = stack.someone("notyp")
    refused(stack.log_out(alice, header={"typ": typ}))
    is_in(alice)


@pytest.mark.parametrize(("tenant", "changes"), [("noexp", {"header": {"typ": None}}), ("notyp", {"exp": None})])
def test_one_switch_is_not_the_other(stack: Stack, tenant: str, changes: dict[str, Any]) -> None:
    alice = stack.someone(tenant)
    refused(stack.log_out(alice, **changes))
    is_in(alice)


@pytest.mark.parametrize("typ", ["LOGOUT+JWT", "application/logout+jwt"])
def test_typ_is_a_media_type(stack: Stack, typ: str) -> None:
    """RFC 7515 §4.1.9: upper and lower case are one, and `application/` may be left out."""
    alice = stack.someone()
    stack.logged_out(alice, header={"typ": typ})
    is_out(alice)


def test_as_keycloak_sends_it(stack: Stack) -> None:
    alice = stack.someone("notyp")
    session = alice.minted()
    events = {
        "http://schemas.openid.net/event/backchannel-logout": {},
        "revoke_offline_access": True,
    }
    stack.logged_out(alice, header={"typ": "JWT"}, typ="Logout", events=events)
    is_out(alice)
    stack.cancelled(session)


def test_addressed_to_the_client_that_logged_the_user_in(stack: Stack) -> None:
    alice = stack.someone("separate")
    refused(stack.log_out(alice))
    is_in(alice)
    stack.logged_out(alice, aud="other-client")
    is_out(alice)


def test_the_client_that_logs_in_is_no_audience_of_access_tokens(stack: Stack) -> None:
    assert stack.someone("separate", aud="login-client").mint().status_code == 401


def test_a_strict_tenant_is_not_bent_by_a_lax_one(stack: Stack) -> None:
    lax = stack.someone("lax", aud="mixed-app", org="lax")
    strict = stack.login("strict", lax.subject, lax.login, aud="mixed-app", org="strict")
    stack.logged_out(lax, aud="mixed-app", exp=None, sid=None)
    is_out(lax)
    is_in(strict)
