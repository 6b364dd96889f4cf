"""OpenAI's own Python SDK takes the authority for OpenAI."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from service.upstream.authority.app import create_authority_app
from service.upstream.authority.faults import Faults
from service.upstream.authority.sessions import Authority

Connect = Callable[..., AbstractAsyncContextManager[AsyncOpenAI]]


@pytest.fixture
def connect(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Open the SDK on an authority with the given faults; it never retries."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def connected(api_key: str = "sk-acme", **options: Any) -> AsyncIterator[AsyncOpenAI]:
        transport = httpx2.ASGITransport(create_authority_app(authority, **options))
        async with AsyncOpenAI(
            api_key=api_key,
            base_url="http://authority.test/v1",
            http_client=httpx2.AsyncClient(transport=transport),
            max_retries=0,
        ) as client:
            yield client

    return connected


async def test_create_is_a_chat_session(connect: Connect) -> None:
    async with connect() as client:
        session = await client.beta.chatkit.sessions.create(
            user="acme:ada",
            workflow={
                "id": "wf_support",
                "version": "3",
                "state_variables": {"plan": "pro", "seats": 3, "trial": False},
                "tracing": {"enabled": False},
            },
            expires_after={"anchor": "created_at", "seconds": 60},
            rate_limits={"max_requests_per_1_minute": 5},
            chatkit_configuration={
                "automatic_thread_titling": {"enabled": False},
                "file_upload": {"enabled": True, "max_file_size": 20, "max_files": 2},
                "history": {"enabled": True, "recent_threads": 7},
            },
        )
    assert session.id.startswith("cksess_")
    assert session.client_secret.startswith("ek_")
    assert (session.object, session.status) == ("chatkit.session", "active")
    assert session.expires_at == 1_800_000_060
    assert session.user == "acme:ada"
    assert session.workflow.to_dict() == {
        "id": "wf_support",
        "version": "3",
        "state_variables": {"plan": "pro", "seats": 3, "trial": False},
        "tracing": {"enabled": False},
    }
    assert session.max_requests_per_1_minute == session.rate_limits.max_requests_per_1_minute == 5
    assert session.chatkit_configuration.to_dict() == {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 20, "max_files": 2},
        "history": {"enabled": True, "recent_threads": 7},
    }


async def test_every_field_is_one_that_the_sdk_knows(connect: Connect) -> None:
    async with connect() as client:
        session = await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
    assert session.model_extra == {}
    assert type(session).model_validate_json(session.to_json()) == session


async def test_cancel_is_the_same_session_cancelled(connect: Connect) -> None:
    async with connect() as client:
        created = await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
        cancelled = await client.beta.chatkit.sessions.cancel(created.id)
    expected = created.to_dict() | {"status": "cancelled"}
    del expected["client_secret"]
    assert cancelled.to_dict() == expected


async def test_answers_carry_their_request_id(connect: Connect) -> None:
    async with connect() as client:
        answer = await client.beta.chatkit.sessions.with_raw_response.create(user="ada", workflow={"id": "wf"})
    assert answer.request_id
    assert answer.request_id.startswith("req_")


async def test_an_unknown_parameter_is_a_bad_request(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.beta.chatkit.sessions.create(
                user="ada", workflow={"id": "wf"}, extra_body={"workflow": {"id": "wf", "isValid": True}}
            )
    assert (refused.value.param, refused.value.code) == ("workflow.isValid", "unknown_parameter")
    assert "Unknown parameter: 'workflow.isValid'." in refused.value.message
    assert refused.value.type == "invalid_request_error"


async def test_a_wrong_beta_header_is_a_bad_request(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.beta.chatkit.sessions.create(
                user="ada", workflow={"id": "wf"}, extra_headers={"OpenAI-Beta": "assistants=v2"}
            )
    assert refused.value.code == "invalid_beta"


async def test_a_bad_key_is_an_authentication_error(connect: Connect) -> None:
    async with connect(api_key="sk-wrong", keys={"sk-acme": "proj_acme"}) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
    assert refused.value.code == "invalid_api_key"


async def test_an_unknown_workflow_or_session_is_not_found(connect: Connect) -> None:
    async with connect(workflows=frozenset({"wf_sales"})) as client:
        with pytest.raises(openai.NotFoundError, match="Workflow with id 'wf_support' not found"):
            await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf_support"})
        with pytest.raises(openai.NotFoundError, match="Session with id 'cksess_nobody' not found"):
            await client.beta.chatkit.sessions.cancel("cksess_nobody")


async def test_rate_limited_is_a_rate_limit_error(connect: Connect) -> None:
    async with connect(faults=Faults(rate_limited=1)) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
    assert refused.value.response.headers["retry-after"] == "1"


async def test_failing_is_an_internal_server_error(connect: Connect) -> None:
    async with connect(faults=Faults(failing=1, cancel_failing=1)) as client:
        with pytest.raises(openai.InternalServerError):
            await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
        with pytest.raises(openai.InternalServerError):
            await client.beta.chatkit.sessions.cancel("cksess_1")


async def test_a_dropped_answer_is_a_connection_error_and_leaves_an_orphan(
    authority: Authority, serving: Callable[..., AbstractAsyncContextManager[int]]
) -> None:
    async with (
        serving(create_authority_app(authority, faults=Faults(drop_after_create=1))) as port,
        AsyncOpenAI(api_key="sk-acme", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client,
    ):
        with pytest.raises(openai.APIConnectionError):
            await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf"})
    assert [session["status"] for session in await authority.sessions()] == ["active"]
