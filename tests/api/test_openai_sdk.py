"""The official SDK, with our address as its base URL and a user's token as its key, and nothing else changed."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from api.stack import Caller, Someone

pytestmark = pytest.mark.process

Connect = Callable[[Caller], AbstractAsyncContextManager[AsyncOpenAI]]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def connected(caller: Caller) -> AsyncIterator[AsyncOpenAI]:
        async with AsyncOpenAI(base_url=f"{caller.service.url}/v1", api_key=caller.token, max_retries=0) as client:
            yield client

    return connected


async def test_a_session_is_created_and_cancelled(someone: Someone, connect: Connect) -> None:
    alice = someone()
    async with connect(alice) as client:
        session = await client.beta.chatkit.sessions.create(
            user=alice.subject,
            workflow={"id": "wf_sales"},
            rate_limits={"max_requests_per_1_minute": 5},
            expires_after={"anchor": "created_at", "seconds": 300},
        )
        assert (session.object, session.status) == ("chatkit.session", "active")
        assert session.client_secret.startswith("ek_")
        assert session.user == f"acme:{alice.subject}"
        assert (session.workflow.id, session.workflow.state_variables) == ("wf_sales", None)
        assert session.workflow.tracing.enabled is True
        assert session.rate_limits.max_requests_per_1_minute == session.max_requests_per_1_minute == 5
        assert session.chatkit_configuration.file_upload.enabled is False
        assert session.chatkit_configuration.history.recent_threads is None
        assert session.chatkit_configuration.automatic_thread_titling.enabled is True
        cancelled = await client.beta.chatkit.sessions.cancel(session.id)
        assert (cancelled.id, cancelled.status) == (session.id, "cancelled")


async def test_400_is_bad_request(someone: Someone, connect: Connect) -> None:
    alice = someone()
    async with connect(alice) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.beta.chatkit.sessions.create(
                user=alice.subject, workflow={"id": "wf_acme"}, extra_body={"colour": "red"}
            )
    error = raised.value
    assert (error.code, error.param, error.type) == ("invalid_request", "colour", "invalid_request_error")
    assert "colour" in error.message
    assert error.request_id
    assert error.request_id == error.response.json()["request_id"]


async def test_401_is_authentication(someone: Someone, connect: Connect) -> None:
    alice = someone(exp=1_700_000_000, iat=1_699_999_000)
    async with connect(alice) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.beta.chatkit.sessions.create(user=alice.subject, workflow={"id": "wf_acme"})
    assert raised.value.code == "token_expired"


async def test_403_is_permission_denied(someone: Someone, connect: Connect) -> None:
    async with connect(someone()) as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.beta.chatkit.sessions.create(user="mallory", workflow={"id": "wf_acme"})
    assert (raised.value.code, raised.value.param) == ("user_mismatch", "user")


async def test_404_is_not_found(someone: Someone, connect: Connect) -> None:
    async with connect(someone()) as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.beta.chatkit.sessions.cancel("cksess_unknown")
    assert raised.value.code == "not_found"


async def test_429_is_rate_limit(someone: Someone, connect: Connect) -> None:
    alice = someone("tight")
    async with connect(alice) as client:
        for _ in range(2):
            await client.beta.chatkit.sessions.create(user=alice.subject, workflow={"id": "wf_tight"})
        with pytest.raises(openai.RateLimitError) as raised:
            await client.beta.chatkit.sessions.create(user=alice.subject, workflow={"id": "wf_tight"})
    assert raised.value.code == "rate_limited"
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_502_and_503_are_server_errors(someone: Someone, connect: Connect) -> None:
    for tenant, status in (("lost", 502), ("failing", 503)):
        alice = someone(tenant)
        async with connect(alice) as client:
            with pytest.raises(openai.InternalServerError) as raised:
                await client.beta.chatkit.sessions.create(user=alice.subject, workflow={"id": f"wf_{tenant}"})
        assert raised.value.status_code == status
        assert raised.value.type == "server_error"
        assert isinstance(raised.value.response, httpx2.Response)
