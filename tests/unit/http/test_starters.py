"""The routes of OpenAI's official starters: an existing page changes its URL and nothing else."""

from typing import Any

import pytest

from service.http.starters import STARTERS
from unit.http.conftest import Open
from unit.http.house import WWW, Browser, Login, refused

MAY: dict[str, Any] = {"client_may": {"workflow.id": ["wf_sales"], "chatkit_configuration.file_upload.enabled": True}}
BODIES: list[tuple[Any, str]] = [
    (None, "wf_acme"),
    ({}, "wf_acme"),
    ({"currentClientSecret": "ek_old"}, "wf_acme"),
    ({"currentClientSecret": None}, "wf_acme"),
    ({"workflow": {"id": "wf_sales"}, "chatkit_configuration": {"file_upload": {"enabled": True}}}, "wf_sales"),
    ({"workflowId": "wf_sales"}, "wf_sales"),
    ({"workflow_id": "wf_acme"}, "wf_acme"),
]


@pytest.mark.parametrize("path", STARTERS)
@pytest.mark.parametrize(("body", "workflow"), BODIES)
async def test_a_starters_page_gets_its_secret(house: Open, login: Login, path: str, body: Any, workflow: str) -> None:
    app = house(login.tenant(session={"workflow": {"id": "wf_acme"}}, **MAY))
    browser = Browser(app, token=login.token())
    answer = await browser.ask("POST", path, **({} if body is None else {"json": body}))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert set(told) == {"client_secret", "expires_at", "expires_after"}
    assert told["client_secret"]
    assert answer.headers["cache-control"] == "no-store"
    listed = (await browser.ask("GET", "/v1/chatkit/sessions")).json()["data"]
    assert [session["workflow"]["id"] for session in listed] == [workflow]
    assert listed[0]["expires_at"] == told["expires_at"]


@pytest.mark.parametrize("path", STARTERS)
async def test_a_workflow_that_policy_does_not_offer_is_refused_with_text_where_a_starter_reads_it(
    house: Open, login: Login, path: str
) -> None:
    browser = Browser(house(login.tenant(**MAY)), token=login.token())
    for wish in ({"workflow": {"id": "wf_other"}}, {"workflowId": "wf_other"}, {"workflow_id": "wf_other"}):
        answer = await browser.ask("POST", path, json=wish)
        assert refused(answer) == (403, "policy_denied")
        assert answer.json()["field"] == "workflow.id"
        assert isinstance(answer.json()["error"], str)


async def test_two_workflows_are_one_too_many(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant(**MAY)), token=login.token())
    for wish in ({"workflow": {"id": "wf_sales"}, "workflowId": "wf_acme"}, {"workflow_id": "a", "workflowId": "b"}):
        answer = await browser.ask("POST", STARTERS[0], json=wish)
        assert refused(answer) == (400, "invalid_request")
        assert answer.json()["field"] == "workflow.id"


async def test_what_nobody_sends_is_a_mistake(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant()), token=login.token())
    answer = await browser.ask("POST", STARTERS[0], json={"colour": "red"})
    assert refused(answer) == (400, "invalid_request")
    assert isinstance(answer.json()["error"], str)
    assert refused(await Browser(browser.app).ask("POST", STARTERS[0])) == (401, "missing_credentials")


async def test_a_visitor_of_a_starters_page_has_a_session(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant(visitors={"origins": [WWW]})))
    assert (await browser.ask("POST", STARTERS[0])).status_code == 200
    assert browser.visitor()
    assert len(await browser.listed()) == 1
