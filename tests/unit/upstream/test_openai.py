"""What OpenAI's sessions endpoint is sent, and what becomes of a whole answer."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import orjson
import pytest
from pydantic import SecretStr

from service.errors import Refusal, UpstreamInvalid, UpstreamRefused, UpstreamUnavailable
from service.session import Status
from support.scripted import BODY, KEY, SESSION, Play, playing, says


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


# --- what is sent ---


async def test_a_create_is_sent_as_the_contract_says() -> None:
    async with playing(says(200, SESSION)) as (client, upstream):
        minted = await client.create()
        (request,) = upstream.received
        assert request.target == "/v1/chatkit/sessions"
        assert orjson.loads(request.body) == BODY
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", request.headers.pop("traceparent"))
        assert request.headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "authorization": f"Bearer {KEY}",
            "openai-beta": "chatkit_beta=v1",
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "chatkit-mint",
            "content-length": str(len(orjson.dumps(BODY))),
        }
        assert (minted.session.id, minted.client_secret) == ("cksess_1", "ek_1")
        assert (minted.session.expires_at, client.orphans) == (1_800_000_300, 0)


async def test_organization_and_project_are_sent_where_configured() -> None:
    async with playing(says(200, SESSION), project="proj_1", organization="org_1") as (client, upstream):
        await client.create()
        headers = upstream.received[0].headers
        assert (headers["openai-project"], headers["openai-organization"]) == ("proj_1", "org_1")


async def test_a_cancel_is_sent_as_the_contract_says() -> None:
    async with playing(says(200, {"status": "active"})) as (client, upstream):
        session = await client.sessions.cancel(client.account, "cksess_1")
        (request,) = upstream.received
        assert (request.target, request.body) == ("/v1/chatkit/sessions/cksess_1/cancel", b"")
        assert request.headers["openai-beta"] == "chatkit_beta=v1"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert session
        assert session.status == Status.CANCELLED


@pytest.mark.parametrize("session_id", ["a/b", "../../v1/x", "a?b#c", "a b", "100%25", "%2F", "a\r\nX: y", "a;b"])
async def test_an_id_stays_one_segment_of_the_path(session_id: str) -> None:
    async with playing(says(200)) as (client, upstream):
        await client.sessions.cancel(client.account, session_id)
        target = upstream.received[0].target
        found = re.fullmatch(r"/v1/chatkit/sessions/([^/?#]+)/cancel", target)
        assert found, target
        assert unquote(found[1]) == session_id


@pytest.mark.parametrize("session_id", ["", ".", ".."])
async def test_an_id_that_would_name_another_path_is_refused_before_anything_is_sent(session_id: str) -> None:
    """A 404 from another path would read as "gone, which is what we wanted"."""
    async with playing(says(404)) as (client, upstream):
        with pytest.raises((Refusal, ValueError)):
            await client.sessions.cancel(client.account, session_id)
        assert upstream.connections == 0


async def test_a_cookie_that_upstream_sets_is_not_sent_back() -> None:
    async with playing(*[says(200, SESSION, set_cookie="who=acme; Path=/")] * 2) as (client, upstream):
        await client.create()
        await client.create()
        assert upstream.connections == 1
        assert not any("cookie" in request.headers for request in upstream.received)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("doing", ["create", "cancel"])
async def test_a_redirect_is_not_followed(status: int, doing: Literal["create", "cancel"]) -> None:
    async with playing(says(status, location="/v1/elsewhere"), says(200, SESSION)) as (client, upstream):
        assert isinstance(await client.refused(doing), UpstreamRefused)
        assert len(upstream.received) == 1


async def test_credentials_for_the_host_in_a_netrc_file_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with playing(says(200, SESSION)) as (client, upstream):
        await client.create()
        assert upstream.received[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "change",
    [
        {"api_keys": (SecretStr("sk-hunter2\r\nX-Admin: yes"),)},
        {"api_keys": (SecretStr("sk-hunter2-é"),)},
        {"project": "proj\nX-Admin: yes"},
        {"base_url": "http://me:sk-hunter2@127.0.0.1:1/v1"},
        {"base_url": "http://127.0.0.1:x/v1"},
    ],
)
async def test_an_account_that_http_can_not_carry_is_a_refusal(change: dict[str, Any]) -> None:
    async with playing() as (client, _):
        client.account = replace(client.account, **change)
        await client.refused()


# --- what is answered ---


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_create_that_upstream_refuses_created_nothing(status: int) -> None:
    error = {"message": f"Bad key {KEY}", "type": "invalid_request_error", "param": None, "code": "bad_key"}
    async with playing(says(status, {"error": error})) as (client, _):
        refused = await client.refused()
        assert isinstance(refused, UpstreamRefused)
        hints = {
            401: ": is the API key right, and of the project that the tenant file names?",
            404: ": nearly always, the API key belongs to another project than workflow wf_1",
        }
        assert refused.reason == f"upstream answered {status} bad_key{hints.get(status, '')}"
        assert refused.detail == UpstreamRefused.public
        assert client.orphans == 0


@pytest.mark.parametrize("status", [408, 409])
async def test_a_create_that_upstream_left_undecided_may_have_created_a_session(status: int) -> None:
    async with playing(says(status)) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamRefused)
        assert (client.orphans, len(upstream.received)) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [None, "text", [], {}, {"code": None, "type": None}, {"code": 5}, {"code": "Key sk-hunter2!"}, {"code": ["x"]}],
)
async def test_of_an_error_only_a_plain_code_is_kept(error: Any) -> None:
    async with playing(says(400, {"error": error})) as (client, _):
        assert (await client.refused()).reason == "upstream answered 400"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "86400"}, 60.0),
        ({"retry_after": "9" * 400}, 60.0),
        ({}, 5.0),
        ({"retry_after": "-7"}, 5.0),
        ({"retry_after": "soon"}, 5.0),
        ({"retry_after": "nan"}, 5.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_upstream_says_when_to_come_back(status: int, headers: dict[str, str], wait: float) -> None:
    async with playing(*[says(status, {"error": {"code": "busy"}}, **headers)] * 3) as (client, _):
        refused = await client.refused()
        assert isinstance(refused, UpstreamUnavailable)
        assert refused.retry_after == wait


async def test_a_busy_upstream_that_says_when_to_come_back_created_nothing() -> None:
    for play in (says(429), says(429, retry_after="1"), says(503, retry_after="1")):
        async with playing(*[play] * 3) as (client, _):
            assert isinstance(await client.refused(), UpstreamUnavailable)
            assert client.orphans == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
async def test_a_failing_upstream_may_have_created_a_session(status: int) -> None:
    """Of the 5xx only a 503 with a retry hint means that nothing was created."""
    async with playing(says(status, b"<html>Bad gateway</html>"), says(200, SESSION)) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamUnavailable)
        assert client.orphans == 1
        assert len(upstream.received) == 1


NO_SESSIONS = [
    b"",
    b"<html><body>Welcome</body></html>",
    b'{"id": "cksess_1", "client_secret": "ek_1"',
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"client_secret": "ek_1"}',
]


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_a_success_without_a_session_is_an_orphan(status: int) -> None:
    async with playing(*[says(status, body) for body in NO_SESSIONS]) as (client, upstream):
        for number in range(len(NO_SESSIONS)):
            assert isinstance(await client.refused(), UpstreamInvalid)
            assert (client.orphans, len(upstream.received)) == (number + 1, number + 1)


@pytest.mark.parametrize("status", [200, 202])
async def test_a_cancel_succeeds_on_any_success(status: int) -> None:
    bodies = [*NO_SESSIONS, orjson.dumps(SESSION)]
    async with playing(*[says(status, body) for body in bodies]) as (client, _):
        for _body in bodies:
            session = await client.sessions.cancel(client.account, "cksess_1")
            assert session
            assert (session.id, session.status) == ("cksess_1", Status.CANCELLED)


async def test_a_session_without_a_secret_is_told_so_that_it_can_be_cancelled() -> None:
    async with playing(says(200, {"id": "cksess_1"})) as (client, _):
        refused = await client.refused()
        assert isinstance(refused, UpstreamInvalid)
        assert (refused.session_id, client.orphans) == ("cksess_1", 0)


async def test_no_content_at_all_is_no_session_but_a_cancel() -> None:
    no_content = Play(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with playing(no_content, no_content) as (client, _):
        assert isinstance(await client.refused(), UpstreamInvalid)
        assert await client.sessions.cancel(client.account, "cksess_1")


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
async def test_a_session_that_is_gone_is_what_a_cancel_wanted(status: int) -> None:
    async with playing(says(status, {"error": {"code": "gone"}})) as (client, _):
        assert await client.sessions.cancel(client.account, "cksess_1") is None


@pytest.mark.parametrize("status", [401, 403, 408, 409, 429, 500, 502, 503, 504, 302])
async def test_a_cancel_that_nobody_confirmed_is_refused(status: int) -> None:
    async with playing(*[says(status)] * 3) as (client, _):
        wanted = UpstreamUnavailable if status == 429 or status >= 500 else UpstreamRefused
        assert isinstance(await client.refused("cancel"), wanted)
        assert client.orphans == 0
