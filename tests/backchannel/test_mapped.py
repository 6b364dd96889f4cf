"""Tenants that read the user and the login out of other claims than `sub` and `sid`."""

import pytest

from api.stack import Caller
from backchannel.parts import Stack, is_in, is_out, later, refused

pytestmark = pytest.mark.process


@pytest.mark.parametrize("absent", [None, "sub", "sid"])
def test_what_can_be_computed_from_a_logout_token_is(stack: Stack, absent: str | None) -> None:
    alice = stack.someone("mapped")
    session = alice.minted()
    laptop = alice.again()
    stack.logged_out(alice, **({absent: None} if absent else {}))
    is_out(alice)
    stack.cancelled(session)
    if absent != "sid":
        is_in(laptop)


def mailed(stack: Stack, tenant: str) -> Caller:
    return stack.someone(tenant, email="alice@acme.example", session_state="s-1")


@pytest.mark.parametrize("sub", ["there", "absent"])
def test_a_user_who_can_not_be_computed_is_found_by_the_login(stack: Stack, sub: str) -> None:
    alice = mailed(stack, "mailed")
    session = alice.minted()
    laptop = alice.again(email="alice@acme.example")
    kept = laptop.minted()
    stack.logged_out(alice, **({} if sub == "there" else {"sub": None}))
    is_out(alice)
    stack.cancelled(session)
    assert stack.status(kept) == "active"
    is_in(laptop)


def test_a_login_that_can_not_be_computed_ends_with_all_of_the_users(stack: Stack) -> None:
    alice = stack.someone("unnamed", session_state="s-1")
    laptop = alice.again(session_state="s-2")
    sessions = [alice.minted(), laptop.minted()]
    stack.logged_out(alice)
    is_out(alice)
    is_out(laptop)
    stack.cancelled(*sessions)
    is_in(alice.again(session_state="s-3", iat=later()))


@pytest.mark.parametrize("named", [{}, {"sid": None}, {"sub": None}])
def test_nobody_who_can_be_computed_is_told_to_the_provider(stack: Stack, named: dict[str, None]) -> None:
    alice = mailed(stack, "unknown")
    answer = stack.log_out(alice, **named)
    refused(answer)
    is_in(alice)
    assert "unknown" not in answer.text
    line = stack.service.line(answer)
    assert "unknown" in line["reason"]
    assert "alice" not in str(line)


def test_a_user_who_can_not_be_computed_is_told_to_the_provider_where_no_login_leads_there(stack: Stack) -> None:
    alice = mailed(stack, "mailed")
    refused(stack.log_out(alice, sid=None))
    is_in(alice)


def test_what_could_be_done_is_done_before_the_no(stack: Stack) -> None:
    known = stack.someone("half-known", aud="half-app", org="half-known")
    unknown = stack.login(
        "half-unknown",
        known.subject,
        known.login,
        aud="half-app",
        org="half-unknown",
        email="a@b",
        session_state="s",
    )
    session, kept = known.minted(), unknown.minted()
    token = stack.provider.logout_token(known, aud="half-app")
    refused(stack.post(token))
    is_out(known)
    stack.cancelled(session)
    assert stack.status(kept) == "active"
    is_in(unknown)
    # Sent again it is no better, and no reason to say so.
    refused(stack.post(token))
