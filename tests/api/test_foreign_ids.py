"""A session id is no key to anything: somebody else's reads like one that never was."""

from collections.abc import Callable

import pytest

from api.stack import Caller, Someone, Upstream

pytestmark = pytest.mark.process

UNKNOWN = "cksess_" + "0" * 48


@pytest.fixture(params=["another user", "another tenant, same subject", "another tenant, same subject and login"])
def stranger(request: pytest.FixtureRequest, someone: Someone) -> Callable[[Caller], Caller]:
    """Somebody who is not the owner."""

    def of(owner: Caller) -> Caller:
        match request.param:
            case "another user":
                return someone(owner.tenant, sid=owner.login)
            case "another tenant, same subject":
                return someone("globex", owner.subject)
            case _:
                return someone("globex", owner.subject, sid=owner.login)

    return of


def test_a_foreign_session_and_an_unknown_one_read_the_same(
    someone: Someone, stranger: Callable[[Caller], Caller], upstream: Upstream
) -> None:
    alice = someone()
    session = alice.minted()
    mallory = stranger(alice)
    foreign, unknown = mallory.cancel(session["id"]), mallory.cancel(UNKNOWN)
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    first, second = foreign.json(), unknown.json()
    assert first.pop("request_id") != second.pop("request_id")
    assert first == second
    assert first["code"] == "not_found"
    assert _comparable(dict(foreign.headers)) == _comparable(dict(unknown.headers))
    assert upstream.status(session["id"]) == "active"
    assert alice.live() == [session["id"]]


def _comparable(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in ("x-request-id", "date")}


@pytest.mark.parametrize("session_id", ["%00", "%2e%2e", "~", "a%2Fb", "%F0%9F%92%A3", "%FF", "x" * 2000, "%7C", "*"])
def test_an_odd_id_is_unknown_too(someone: Someone, session_id: str) -> None:
    answer = someone().cancel(session_id)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_another_login_of_the_user_may_cancel_the_session(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    session = alice.minted()
    assert alice.again().cancel(session["id"]).status_code == 200
    assert upstream.status(session["id"]) == "cancelled"


def test_a_cancelled_session_is_unknown_from_then_on(someone: Someone) -> None:
    alice = someone()
    session = alice.minted()
    assert alice.cancel(session["id"]).status_code == 200
    assert alice.cancel(session["id"]).status_code == 404
