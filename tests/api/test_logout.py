"""Logging out ends sessions where they were issued, and the right to mint with that login."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.parts import RedisServer, eventually
from api.stack import Someone, Upstream

pytestmark = pytest.mark.process


def test_logout_cancels_the_logins_sessions_at_the_authority(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    first, second = alice.minted(), alice.minted()
    answer = alice.log_out()
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 2, "pending": 0})
    assert answer.headers["cache-control"] == "no-store"
    assert upstream.status(first["id"]) == "cancelled"
    assert upstream.status(second["id"]) == "cancelled"
    assert alice.live() == []


def test_a_logged_out_login_mints_no_more(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    alice.minted()
    alice.log_out()
    answer = alice.mint()
    assert (answer.status_code, answer.json()["code"]) == (401, "login_revoked")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "login_revoked"
    assert {session["status"] for session in upstream.of(f"acme:{alice.subject}")} == {"cancelled"}


def test_a_fresh_token_of_a_logged_out_login_mints_no_more(someone: Someone) -> None:
    alice = someone()
    alice.log_out()
    refreshed = alice.again(sid=alice.login, iat=int(time.time()) + 5)
    assert refreshed.mint().json()["code"] == "login_revoked"


def test_a_new_login_mints_again(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    alice.minted()
    alice.log_out()
    session = alice.again().minted()
    assert upstream.status(session["id"]) == "active"


def test_logout_leaves_other_logins_of_the_user_alone(someone: Someone, upstream: Upstream) -> None:
    phone = someone()
    laptop = phone.again()
    on_phone, on_laptop = phone.minted(), laptop.minted()
    assert phone.log_out().json() == {"cancelled": 1, "pending": 0}
    assert upstream.status(on_phone["id"]) == "cancelled"
    assert upstream.status(on_laptop["id"]) == "active"
    assert laptop.live() == [on_laptop["id"]]
    assert laptop.mint().status_code == 200


def test_logout_everywhere_ends_every_login(someone: Someone, upstream: Upstream) -> None:
    phone = someone()
    laptop = phone.again()
    sessions = [phone.minted(), laptop.minted(), laptop.minted()]
    assert phone.log_out(everywhere=True).json() == {"cancelled": 3, "pending": 0}
    assert {upstream.status(session["id"]) for session in sessions} == {"cancelled"}
    for login in (phone, laptop):
        assert (login.mint().status_code, login.mint().json()["code"]) == (401, "login_revoked")
    # Issued a moment later: times in tokens are whole seconds.
    assert phone.again(iat=int(time.time()) + 2).mint().status_code == 200


def test_tokens_without_a_login_are_all_logged_out_at_once(someone: Someone, upstream: Upstream) -> None:
    alice = someone(sid=None)
    other = someone(alice.tenant, alice.subject, sid=None)
    first, second = alice.minted(), other.minted()
    assert alice.log_out().json() == {"cancelled": 2, "pending": 0}
    assert {upstream.status(first["id"]), upstream.status(second["id"])} == {"cancelled"}
    assert other.mint().json()["code"] == "login_revoked"


@pytest.mark.parametrize("everywhere", [False, True])
def test_other_users_and_other_tenants_are_untouched(someone: Someone, upstream: Upstream, everywhere: bool) -> None:
    alice = someone()
    bob = someone(sid=alice.login)
    namesake = someone("globex", alice.subject, sid=alice.login)
    alice.minted()
    kept = [bob.minted(), namesake.minted()]
    assert alice.log_out(everywhere=everywhere).json() == {"cancelled": 1, "pending": 0}
    assert [upstream.status(session["id"]) for session in kept] == ["active", "active"]
    assert bob.mint().status_code == 200
    assert namesake.mint().status_code == 200


def test_a_second_logout_finds_nothing_left(someone: Someone) -> None:
    alice = someone()
    alice.minted()
    assert alice.log_out().json() == {"cancelled": 1, "pending": 0}
    assert alice.log_out().json() == {"cancelled": 0, "pending": 0}


def test_a_session_that_was_cancelled_is_not_counted_again(someone: Someone) -> None:
    alice = someone()
    alice.cancel(alice.minted()["id"])
    assert alice.log_out().json() == {"cancelled": 0, "pending": 0}


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_logout_during_a_mint_wins(
    someone: Someone, upstream: Upstream, redis_server: RedisServer, everywhere: bool
) -> None:
    """The fence is looked at again when the session is recorded: no secret leaves after the logout."""
    alice = someone("slow")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(alice.mint)
        eventually(lambda: redis_server.leases("slow"))
        assert alice.log_out(everywhere=everywhere).json() == {"cancelled": 0, "pending": 0}
        answer = minting.result()
    assert (answer.status_code, answer.json()["code"]) == (401, "login_revoked")
    assert "ek_" not in answer.text
    [session] = upstream.of(f"slow:{alice.subject}")
    assert session["status"] == "cancelled"
    assert alice.live() == []


def test_a_login_that_is_over_can_do_nothing_but_repeat_its_own_logout(someone: Someone) -> None:
    stolen = someone()
    stolen.minted()
    stolen.log_out()
    new = stolen.again()
    session = new.minted()
    for answer in (
        stolen.log_out(everywhere=True),
        stolen.get("/v1/chatkit/sessions"),
        stolen.cancel(session["id"]),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "login_revoked")
    assert stolen.log_out().json() == {"cancelled": 0, "pending": 0}
    assert new.live() == [session["id"]]
