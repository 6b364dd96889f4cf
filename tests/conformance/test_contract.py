"""The upstream contract, row by row: what `design/upstream.md` says that an issuer of sessions does.

What that page calls "not verified" is tried in so far as every answer that it allows is allowed here.
"""

import time
from typing import Any

import openai
import pytest

from conformance.conftest import Endpoint

ROW = pytest.mark.parametrize


async def test_create_answers_a_session_with_its_secret(endpoint: Endpoint) -> None:
    before = time.time()
    session = await endpoint.sdk.beta.chatkit.sessions.create(**endpoint.wish())
    assert session.id.startswith("cksess_")
    assert session.client_secret
    assert (session.object, session.status, session.user) == ("chatkit.session", "active", "conformance:ada")
    assert before + 55 <= session.expires_at <= time.time() + 65
    assert session.workflow.id == endpoint.workflow
    await endpoint.sdk.beta.chatkit.sessions.cancel(session.id)


async def test_create_fills_in_the_defaults(endpoint: Endpoint) -> None:
    answer = await endpoint.post("/chatkit/sessions", endpoint.wish())
    assert answer.status_code == 200
    session = answer.json()
    assert session["rate_limits"] == {"max_requests_per_1_minute": 10}
    assert session["max_requests_per_1_minute"] == 10
    configuration = session["chatkit_configuration"]
    assert configuration["automatic_thread_titling"]["enabled"] is True
    assert configuration["file_upload"]["enabled"] is False
    assert configuration["history"] == {"enabled": True, "recent_threads": None}
    assert session["workflow"]["state_variables"] in (None, {})
    assert session["workflow"]["tracing"] == {"enabled": True}
    assert answer.headers["x-request-id"]
    await endpoint.sdk.beta.chatkit.sessions.cancel(session["id"])


async def test_create_resolves_every_wish(endpoint: Endpoint) -> None:
    configuration = {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 7, "max_files": 3},
        "history": {"enabled": True, "recent_threads": 4},
    }
    state = {"plan": "pro", "seats": 3, "trial": False, "ratio": 0.5}
    wish = endpoint.wish(
        workflow={"id": endpoint.workflow, "state_variables": state, "tracing": {"enabled": False}},
        rate_limits={"max_requests_per_1_minute": 77},
        chatkit_configuration=configuration,
    )
    session = (await endpoint.post("/chatkit/sessions", wish)).json()
    assert session["chatkit_configuration"] == configuration
    assert session["max_requests_per_1_minute"] == 77
    assert session["workflow"]["state_variables"] == state
    assert session["workflow"]["tracing"] == {"enabled": False}
    await endpoint.sdk.beta.chatkit.sessions.cancel(session["id"])


async def test_no_secret_and_no_id_comes_twice(endpoint: Endpoint) -> None:
    made = [await endpoint.sdk.beta.chatkit.sessions.create(**endpoint.wish()) for _ in range(3)]
    assert len({each.id for each in made}) == len({each.client_secret for each in made}) == 3
    for each in made:
        await endpoint.sdk.beta.chatkit.sessions.cancel(each.id)


async def test_cancel_answers_the_session_cancelled(endpoint: Endpoint) -> None:
    session = await endpoint.sdk.beta.chatkit.sessions.create(**endpoint.wish())
    answer = await endpoint.post(f"/chatkit/sessions/{session.id}/cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert answer.json().get("client_secret") in (None, ""), "a cancel gives no secret out"
    again = await endpoint.post(f"/chatkit/sessions/{session.id}/cancel")
    assert again.status_code in (200, 400, 404, 410), "not verified; whatever it is, it says that nothing is live"


async def test_an_unknown_session_can_not_be_cancelled(endpoint: Endpoint) -> None:
    answer = await endpoint.post(f"/chatkit/sessions/cksess_{'0' * 48}/cancel")
    assert answer.status_code == 404
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}


@ROW(
    "wishes",
    [
        {"user": None},
        {"user": ""},
        {"workflow": None},
        {"expires_after": {"anchor": "created_at", "seconds": 0}},
        {"expires_after": {"anchor": "created_at", "seconds": 601}},
        {"expires_after": {"anchor": "last_active_at", "seconds": 60}},
        {"expires_after": {"seconds": 60}},
        {"expires_after": {"anchor": "created_at"}},
        {"rate_limits": {"max_requests_per_1_minute": 0}},
        {"chatkit_configuration": {"file_upload": {"enabled": True, "max_file_size": 513}}},
        {"chatkit_configuration": {"file_upload": {"enabled": True, "max_file_size": 0}}},
        {"chatkit_configuration": {"file_upload": {"enabled": True, "max_files": 0}}},
        {"chatkit_configuration": {"history": {"enabled": True, "recent_threads": 0}}},
        {"colour": "red"},
    ],
    ids=str,
)
async def test_what_is_outside_the_table_is_a_400(endpoint: Endpoint, wishes: dict[str, Any]) -> None:
    body = {name: value for name, value in endpoint.wish(**wishes).items() if value is not None}
    answer = await endpoint.post("/chatkit/sessions", body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"


async def test_an_unknown_field_is_named(endpoint: Endpoint) -> None:
    wish = endpoint.wish(workflow={"id": endpoint.workflow, "isValid": True})
    with pytest.raises(openai.BadRequestError, match=r"Unknown parameter: 'workflow\.isValid'"):
        await endpoint.sdk.beta.chatkit.sessions.create(**wish)


@ROW(
    "state",
    [
        {f"k{number}": 1 for number in range(65)},
        {"k" * 65: 1},
        {"nested": {"a": 1}},
        {"listed": [1]},
    ],
    ids=["65 of them", "a long name", "an object", "a list"],
)
async def test_state_variables_have_their_bounds(endpoint: Endpoint, state: dict[str, Any]) -> None:
    wish = endpoint.wish(workflow={"id": endpoint.workflow, "state_variables": state})
    assert (await endpoint.post("/chatkit/sessions", wish)).status_code == 400


async def test_an_unknown_workflow_is_a_404_that_names_it(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError, match="wf_nobody_has_this"):
        await endpoint.sdk.beta.chatkit.sessions.create(**endpoint.wish(workflow={"id": "wf_nobody_has_this"}))


async def test_a_bad_key_is_a_401(endpoint: Endpoint) -> None:
    for path, body in (("/chatkit/sessions", endpoint.wish()), ("/chatkit/sessions/cksess_1/cancel", None)):
        for header in (None, "Bearer wrong-key"):
            answer = await endpoint.post(path, body, authorization=header)
            assert answer.status_code == 401
            assert "wrong-key" not in answer.text
            assert answer.headers["x-request-id"]


async def test_without_the_beta_header_there_is_no_session(endpoint: Endpoint) -> None:
    answer = await endpoint.post("/chatkit/sessions", endpoint.wish(), openai_beta=None)
    assert 400 <= answer.status_code < 500


async def test_there_is_no_get_and_no_list(endpoint: Endpoint) -> None:
    headers = {"authorization": f"Bearer {endpoint.api_key}", "openai-beta": "chatkit_beta=v1"}
    for path in ("/chatkit/sessions", f"/chatkit/sessions/cksess_{'0' * 48}"):
        assert (await endpoint.bare.get(path, headers=headers)).status_code in (404, 405)
