"""The forms of a logout: a login of a user, a login alone, a user alone."""

import json

import httpx2
import pytest

from backchannel.parts import Stack, accepted, is_in, is_out, later

FORMS = {"sub and sid": {}, "sid alone": {"sub": None}, "sub alone": {"sid": None}}

pytestmark = pytest.mark.process


@pytest.fixture(params=FORMS, ids=lambda name: name.replace(" ", "-"))
def form(request: pytest.FixtureRequest) -> dict[str, None]:
    return FORMS[request.param]


def test_logout_cancels_at_the_authority_and_ends_the_right_to_mint(stack: Stack, form: dict[str, None]) -> None:
    alice = stack.someone()
    first, second = alice.minted(), alice.minted()
    stack.logged_out(alice, **form)
    is_out(alice)
    assert alice.live() == []
    stack.cancelled(first, second)


def test_the_answer_comes_with_the_fence_and_does_not_wait_for_upstream(stack: Stack) -> None:
    alice = stack.someone("slow")
    session = alice.minted()
    stack.logged_out(alice)
    assert stack.status(session) == "active"
    assert alice.live() == []
    is_out(alice)
    stack.cancelled(session)


@pytest.mark.parametrize("name", ["sub and sid", "sid alone"])
def test_another_login_of_the_user_goes_on(stack: Stack, name: str) -> None:
    phone = stack.someone()
    laptop, new = phone.again(), phone.again()
    on_phone, on_laptop = phone.minted(), laptop.minted()
    stack.logged_out(phone, **FORMS[name])
    is_out(phone)
    stack.cancelled(on_phone)
    assert laptop.live() == [on_laptop["id"]]
    assert stack.status(on_laptop) == "active"
    is_in(laptop)
    is_in(new)


def test_a_user_alone_loses_every_login(stack: Stack) -> None:
    phone = stack.someone()
    laptop = phone.again()
    sessions = [phone.minted(), laptop.minted()]
    stack.logged_out(phone, sid=None)
    is_out(phone)
    is_out(laptop)
    stack.cancelled(*sessions)
    is_in(phone.again(iat=later()))


def test_others_are_untouched(stack: Stack, form: dict[str, None]) -> None:
    alice, bob = stack.someone(), stack.someone()
    namesake = stack.someone("globex", alice.subject)
    kept = [bob.minted(), namesake.minted()]
    stack.logged_out(alice, **form)
    is_out(alice)
    assert [stack.status(session) for session in kept] == ["active", "active"]
    is_in(bob)
    is_in(namesake)


@pytest.mark.parametrize("name", ["sub and sid", "sid alone"])
def test_a_login_that_never_minted_mints_no_more(stack: Stack, name: str) -> None:
    alice = stack.someone()
    stack.logged_out(alice, **FORMS[name])
    is_out(alice)
    # Nor does a token that the provider gave out afterwards.
    is_out(stack.login("acme", alice.subject, alice.login, iat=later()))


def test_tokens_without_a_login_end_with_any_logout_of_their_user(stack: Stack) -> None:
    """As with Auth0: `sid` is in logout tokens, and not in access tokens."""
    alice = stack.someone(sid=None)
    laptop = alice.again()
    session, kept = alice.minted(), laptop.minted()
    stack.logged_out(alice)
    is_out(alice)
    stack.cancelled(session)
    assert stack.status(kept) == "active"
    is_in(laptop)
    is_in(stack.someone("acme", alice.subject, sid=None, iat=later()))


def test_every_tenant_of_the_issuer_is_logged_out_of(stack: Stack, form: dict[str, None]) -> None:
    north = stack.someone("north", aud="shared-app", org="north")
    south = stack.login("south", north.subject, north.login, aud="shared-app", org="south")
    sessions = [north.minted(), south.minted()]
    stack.logged_out(north, aud="shared-app", **form)
    is_out(north)
    is_out(south)
    stack.cancelled(*sessions)


def test_an_audience_among_others_is_one(stack: Stack) -> None:
    alice = stack.someone()
    stack.logged_out(alice, aud=["elsewhere", "acme-app"])
    is_out(alice)


def test_a_user_who_is_nowhere_is_logged_out_all_the_same(stack: Stack, form: dict[str, None]) -> None:
    stack.logged_out(stack.someone(), **form)


def test_what_else_the_form_holds_is_the_providers_own_affair(stack: Stack) -> None:
    alice = stack.someone()
    accepted(stack.post(stack.provider.logout_token(alice), state="x", empty=""))
    is_out(alice)


def test_media_type_may_tell_its_charset(stack: Stack) -> None:
    alice = stack.someone()
    token = stack.provider.logout_token(alice)
    accepted(_posted(stack, f"logout_token={token}", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"))
    is_out(alice)


def test_the_log_names_the_issuer_and_the_tenants_and_nothing_of_the_token(stack: Stack) -> None:
    alice = stack.someone()
    alice.minted()
    token = stack.provider.logout_token(alice)
    answer = stack.post(token)
    line = stack.service.line(answer)
    assert (line["issuer"], line["tenants"]) == (stack.provider.issuer.url, ["acme"])
    text = stack.service.process.text()
    assert token not in text
    assert token.rpartition(".")[2] not in text
    assert alice.login not in json.dumps(stack.service.lines())  # the audit stream, apart, says whose it was


def _posted(stack: Stack, body: str, media_type: str) -> httpx2.Response:
    return stack.service.http.post(
        "/v1/logout/backchannel", content=body.encode(), headers={"content-type": media_type}
    )
