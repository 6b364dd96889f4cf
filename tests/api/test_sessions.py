"""Mint, list, cancel: what a caller gets, and what it may ask for."""

from typing import Any

import pytest

from api.stack import Someone, Upstream

pytestmark = pytest.mark.process

FIELDS = {
    "id",
    "object",
    "status",
    "user",
    "expires_at",
    "client_secret",
    "workflow",
    "rate_limits",
    "max_requests_per_1_minute",
    "chatkit_configuration",
}


def test_mint_list_cancel_list(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    assert alice.live() == []
    minted = alice.minted()
    assert upstream.status(minted["id"]) == "active"
    assert alice.live() == [minted["id"]]
    answer = alice.cancel(minted["id"])
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert upstream.status(minted["id"]) == "cancelled"
    assert alice.live() == []


def test_a_mint_answers_the_whole_session_object(someone: Someone, upstream: Upstream) -> None:
    alice = someone()
    answer = alice.mint()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    session = answer.json()
    assert set(session) == FIELDS
    assert session["client_secret"].startswith("ek_")
    at_authority = upstream.find(session["id"])
    assert at_authority is not None
    # State variables are the server's: upstream has them, the browser has not.
    assert at_authority["workflow"]["state_variables"] == {"plan": "pro", "greeting": f"Hello {alice.subject}"}
    at_authority["workflow"]["state_variables"] = None
    assert {name: value for name, value in session.items() if name != "client_secret"} == at_authority
    assert session["user"] == f"acme:{alice.subject}"
    assert session["max_requests_per_1_minute"] == 15


def test_every_mint_is_a_session_of_its_own(someone: Someone) -> None:
    alice = someone()
    first, second = alice.minted(), alice.minted()
    assert first["id"] != second["id"]
    assert first["client_secret"] != second["client_secret"]
    assert set(alice.live()) == {first["id"], second["id"]}


def test_state_variables_are_shown_where_the_tenant_says_so(someone: Someone) -> None:
    alice = someone("open")
    variables = alice.minted()["workflow"]["state_variables"]
    assert variables == {"plan": "pro", "greeting": f"Hello {alice.subject}"}


def test_the_list_has_no_secret_and_no_other_user(someone: Someone) -> None:
    alice, bob = someone(), someone()
    minted, _ = alice.minted(), bob.minted()
    answer = alice.get("/v1/chatkit/sessions")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["object"] == "list"
    [listed] = answer.json()["data"]
    assert (listed["id"], listed["object"], listed["status"]) == (minted["id"], "chatkit.session", "active")
    assert (listed["user"], listed["expires_at"]) == (minted["user"], minted["expires_at"])
    assert "client_secret" not in answer.text


def test_a_cancel_answers_the_session_without_a_secret(someone: Someone) -> None:
    alice = someone()
    minted = alice.minted()
    answer = alice.cancel(minted["id"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {name: value for name, value in minted.items() if name != "client_secret"} | {
        "status": "cancelled"
    }


@pytest.mark.parametrize("prefix", ["", "acme:"])
def test_the_user_in_the_body_may_be_the_callers_own(someone: Someone, prefix: str) -> None:
    alice = someone()
    assert alice.minted(user=prefix + alice.subject)["user"] == f"acme:{alice.subject}"


@pytest.mark.parametrize("user", ["mallory", "globex:{subject}", "acme:acme:{subject}", "{subject} "])
def test_another_user_in_the_body_is_refused(someone: Someone, upstream: Upstream, user: str) -> None:
    alice = someone()
    answer = alice.mint(user=user.format(subject=alice.subject))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (403, "user_mismatch", "user")
    assert alice.live() == []
    assert upstream.of(f"acme:{alice.subject}") == []


def _wish(field: str, value: Any) -> dict[str, Any]:
    body: Any = value
    for part in reversed(field.split(".")):
        body = {part: body}
    return dict(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workflow.id", "wf_acme"),
        ("workflow.state_variables.plan", "pro"),
        ("rate_limits.max_requests_per_1_minute", 15),
        ("expires_after", {"anchor": "created_at", "seconds": 300}),
    ],
)
def test_a_wish_for_what_the_policy_gives_anyway_is_granted(someone: Someone, field: str, value: Any) -> None:
    assert someone().mint(**_wish(field, value)).status_code == 200


def test_a_wish_within_client_may_is_granted(someone: Someone, upstream: Upstream) -> None:
    session = someone().minted(workflow={"id": "wf_sales"}, rate_limits={"max_requests_per_1_minute": 20})
    at_authority = upstream.find(session["id"])
    for seen in (session, at_authority):
        assert seen
        assert seen["workflow"]["id"] == "wf_sales"
        assert seen["rate_limits"] == {"max_requests_per_1_minute": 20}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workflow.id", "wf_other"),
        ("workflow.version", "3"),
        ("workflow.tracing.enabled", False),
        ("workflow.state_variables.plan", "enterprise"),
        ("workflow.state_variables.admin", True),
        ("rate_limits.max_requests_per_1_minute", 21),
        ("chatkit_configuration.file_upload.enabled", True),
        ("chatkit_configuration.history.recent_threads", 1),
    ],
)
def test_a_wish_outside_the_policy_is_refused_by_name(
    someone: Someone, upstream: Upstream, field: str, value: Any
) -> None:
    alice = someone()
    answer = alice.mint(**_wish(field, value))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (403, "policy_denied", field)
    assert answer.json()["error"]["param"] == field
    assert upstream.of(f"acme:{alice.subject}") == []


def test_a_longer_life_than_the_policys_is_refused(someone: Someone) -> None:
    answer = someone().mint(expires_after={"anchor": "created_at", "seconds": 301})
    assert (answer.status_code, answer.json()["field"]) == (403, "expires_after.seconds")


def test_an_empty_body_and_an_empty_object_ask_for_nothing(someone: Someone) -> None:
    alice = someone()
    plain = alice.service.http.post("/v1/chatkit/sessions", headers=alice.headers)
    empty = alice.service.http.post(
        "/v1/chatkit/sessions",
        headers={**alice.headers, "content-type": "application/json; charset=utf-8"},
        content=b"{}",
    )
    assert (plain.status_code, empty.status_code) == (200, 200)
