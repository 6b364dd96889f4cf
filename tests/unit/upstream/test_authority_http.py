"""The authority's app: keys, headers, error shape and faults, asked over ASGI and over real sockets."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.types import ASGIApp

from service.upstream.authority.app import create_authority_app
from service.upstream.authority.faults import Faults, parse_faults
from service.upstream.authority.sessions import Authority

SESSIONS = "/v1/chatkit/sessions"
BODY: dict[str, Any] = {"user": "acme:ada", "workflow": {"id": "wf_support"}}
KEY = "sk-acme-4711"
Serving = Callable[..., AbstractAsyncContextManager[int]]
HEADERS = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "chatkit_beta=v1"}


@asynccontextmanager
async def asking(app: ASGIApp, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with good headers; an empty text takes one away, `_` stands for `-`."""
    sent = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    base = "http://authority.test"
    kept = {name: value for name, value in sent.items() if value}
    async with httpx2.AsyncClient(transport=transport, base_url=base, headers=kept) as client:
        yield client


async def error_of(app: ASGIApp, status: int, **headers: str) -> dict[str, Any]:
    """Try to create, expect *status*, return the error."""
    async with asking(app, **headers) as client:
        answer = await client.post(SESSIONS, json=BODY)
    assert answer.status_code == status
    return the_error(answer)


def the_error(answer: httpx2.Response) -> dict[str, Any]:
    """Return the answer's error once its shape and headers were found to be OpenAI's."""
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["openai-processing-ms"].isdigit()
    body: dict[str, dict[str, Any]] = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


async def test_create_and_cancel_answer_200_with_a_request_id_each(authority: Authority) -> None:
    async with asking(create_authority_app(authority)) as client:
        created = await client.post(SESSIONS, json=BODY)
        session = created.json()
        cancelled = await client.post(f"{SESSIONS}/{session['id']}/cancel")
    assert (created.status_code, cancelled.status_code) == (200, 200)
    assert cancelled.json() == {k: v for k, v in session.items() if k != "client_secret"} | {"status": "cancelled"}
    ids = {answer.headers["x-request-id"] for answer in (created, cancelled)}
    assert len(ids) == 2
    assert all(answer.headers["openai-processing-ms"].isdigit() for answer in (created, cancelled))


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer ", "Basic sk-acme-4711", "Bearer pk-acme", "Bearer sk-"])
async def test_without_a_good_key_nothing_is_created(authority: Authority, sent: str) -> None:
    error = await error_of(create_authority_app(authority), 401, Authorization=sent)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert await authority.sessions() == []


async def test_a_refused_key_is_not_repeated(authority: Authority) -> None:
    app = create_authority_app(authority, keys={KEY: "proj_acme"})
    error = await error_of(app, 401, Authorization="Bearer sk-mistyped-0815")
    assert error["code"] == "invalid_api_key"
    assert "0815" not in str(error)


@pytest.mark.parametrize("keys", [None, {KEY: "proj_acme", "sk-other": "proj_other"}])
async def test_a_session_belongs_to_the_project_of_its_key(authority: Authority, keys: dict[str, str] | None) -> None:
    app = create_authority_app(authority, keys=keys)
    async with asking(app) as acme, asking(app, Authorization="Bearer sk-other") as other:
        session = (await acme.post(SESSIONS, json=BODY)).json()
        refused = await other.post(f"{SESSIONS}/{session['id']}/cancel")
        cancelled = await acme.post(f"{SESSIONS}/{session['id']}/cancel")
    assert refused.status_code == 404
    assert the_error(refused)["message"] == f"Session with id '{session['id']}' not found."
    assert cancelled.status_code == 200


async def test_two_keys_of_one_project_share_its_sessions(authority: Authority) -> None:
    app = create_authority_app(authority, keys={KEY: "proj_acme", "sk-next": "proj_acme"})
    async with asking(app) as old, asking(app, Authorization="Bearer sk-next") as new:
        session = (await old.post(SESSIONS, json=BODY)).json()
        assert (await new.post(f"{SESSIONS}/{session['id']}/cancel")).status_code == 200


async def test_the_project_header_must_match_the_keys_project(authority: Authority) -> None:
    app = create_authority_app(authority, keys={KEY: "proj_acme"})
    error = await error_of(app, 401, OpenAI_Project="proj_other")
    assert error["code"] == "mismatched_project"
    async with asking(app, OpenAI_Project="proj_acme") as client:
        assert (await client.post(SESSIONS, json=BODY)).status_code == 200


@pytest.mark.parametrize("sent", ["", "assistants=v2", "chatkit_beta=v2", "chatkit_beta"])
async def test_both_calls_need_the_beta_header(authority: Authority, sent: str) -> None:
    app = create_authority_app(authority)
    error = await error_of(app, 400, OpenAI_Beta=sent)
    assert error["code"] == "invalid_beta"
    async with asking(app, OpenAI_Beta=sent) as client:
        assert (await client.post(f"{SESSIONS}/cksess_1/cancel")).status_code == 400


@pytest.mark.parametrize("sent", ["assistants=v2, chatkit_beta=v1", "chatkit_beta=v1,realtime=v1"])
async def test_the_beta_header_may_name_others_too(authority: Authority, sent: str) -> None:
    async with asking(create_authority_app(authority), OpenAI_Beta=sent) as client:
        assert (await client.post(SESSIONS, json=BODY)).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"user=ada", b'{"user": NaN}', b'"\\ud800"', b"[" * 5000])
async def test_a_body_that_is_not_json_is_a_bad_request(authority: Authority, content: bytes) -> None:
    async with asking(create_authority_app(authority)) as client:
        answer = await client.post(SESSIONS, content=content)
    assert answer.status_code == 400
    assert the_error(answer)["code"] == "invalid_json"


async def test_a_body_that_is_no_object_is_a_bad_request(authority: Authority) -> None:
    async with asking(create_authority_app(authority)) as client:
        answer = await client.post(SESSIONS, json=[BODY])
    assert answer.status_code == 400
    assert the_error(answer)["code"] == "invalid_type"


async def test_a_body_too_large_for_any_session_is_refused(authority: Authority) -> None:
    async with asking(create_authority_app(authority)) as client:
        answer = await client.post(SESSIONS, content=b" " * (64 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert the_error(answer)["code"] == "body_too_large"


async def test_an_unknown_workflow_is_not_found(authority: Authority) -> None:
    app = create_authority_app(authority, workflows=frozenset({"wf_sales"}))
    error = await error_of(app, 404)
    assert error["message"] == "Workflow with id 'wf_support' not found."
    async with asking(app) as client:
        known = await client.post(SESSIONS, json={"user": "ada", "workflow": {"id": "wf_sales"}})
        wrong = await client.post(SESSIONS, json={"user": "ada", "workflow": {}})
    assert known.status_code == 200
    assert the_error(wrong)["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", SESSIONS, 405),
        ("DELETE", f"{SESSIONS}/cksess_1/cancel", 405),
        ("POST", f"{SESSIONS}/", 404),
        ("POST", f"{SESSIONS}//cancel", 404),
        ("GET", "/v1/models", 404),
    ],
)
async def test_other_calls_fail_in_the_same_shape(authority: Authority, method: str, path: str, status: int) -> None:
    async with asking(create_authority_app(authority)) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert the_error(answer)["type"] == "invalid_request_error"


async def test_a_defect_tells_nothing_about_itself(redis: Redis) -> None:
    def broken() -> float:
        raise ZeroDivisionError("at the clockmaker's")

    error = await error_of(create_authority_app(Authority(redis, clock=broken)), 500)
    assert error["type"] == "server_error"
    assert "clock" not in error["message"]


async def test_redis_down_is_a_503(tmp_path: Path) -> None:
    async with Redis(unix_socket_path=str(tmp_path / "none.sock"), retry=Retry(NoBackoff(), 0)) as gone:
        error = await error_of(create_authority_app(Authority(gone)), 503)
    assert (error["type"], error["code"]) == ("server_error", "store_unavailable")


async def test_rate_limited_says_when_to_come_back_and_creates_nothing(authority: Authority) -> None:
    async with asking(create_authority_app(authority, faults=Faults(rate_limited=1))) as client:
        answer = await client.post(SESSIONS, json=BODY)
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert the_error(answer)["code"] == "rate_limit_exceeded"
    assert await authority.sessions() == []


async def test_failing_creates_nothing(authority: Authority) -> None:
    error = await error_of(create_authority_app(authority, faults=Faults(failing=1)), 500)
    assert error["type"] == "server_error"
    assert await authority.sessions() == []


async def test_a_failing_cancel_leaves_the_session_active(authority: Authority) -> None:
    async with asking(create_authority_app(authority, faults=Faults(cancel_failing=1))) as client:
        session = (await client.post(SESSIONS, json=BODY)).json()
        answer = await client.post(f"{SESSIONS}/{session['id']}/cancel")
    assert answer.status_code == 500
    assert (await authority.sessions())[0]["status"] == "active"


async def test_latency_comes_before_anything_is_created(authority: Authority) -> None:
    app = create_authority_app(authority, faults=Faults(latency=3600))
    with pytest.raises(TimeoutError):
        async with asking(app) as client, asyncio.timeout(0.05):
            await client.post(SESSIONS, json=BODY)
    assert await authority.sessions() == []


async def test_the_same_chance_draws_the_same_faults(authority: Authority) -> None:
    async def statuses(seed: int) -> list[int]:
        faults = parse_faults(["rate_limited=0.3", "failing=0.3"], chance=random.Random(seed))  # noqa: S311  (drawn, not guarded against)
        async with asking(create_authority_app(authority, faults=faults)) as client:
            return [(await client.post(SESSIONS, json=BODY)).status_code for _ in range(40)]

    first = await statuses(7)
    assert set(first) == {200, 429, 500}
    assert await statuses(7) == first
    assert await statuses(8) != first


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_dropped_answer_is_lost_to_the_last_byte_and_the_session_lives(
    authority: Authority, serving: Serving, http: str
) -> None:
    app = create_authority_app(authority, faults=Faults(drop_after_create=1))
    content = orjson.dumps(BODY)
    head = [f"POST {SESSIONS} HTTP/1.1", "Host: authority.test", f"Content-Length: {len(content)}"]
    head += [f"{name}: {value}" for name, value in HEADERS.items()]
    async with serving(app, http=http) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert [session["status"] for session in await authority.sessions()] == ["active"]


async def test_a_client_in_the_same_process_loses_a_dropped_answer_too(authority: Authority) -> None:
    app = create_authority_app(authority, faults=Faults(drop_after_create=1))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://authority.test") as client:
        with pytest.raises(ConnectionAbortedError):
            await client.post(SESSIONS, json=BODY, headers=HEADERS)
    assert [session["status"] for session in await authority.sessions()] == ["active"]


def test_faults_are_read_from_names_and_values() -> None:
    texts = ["latency=0.25", "rate_limited=0.1", "failing=0", "drop_after_create=1", "cancel_failing=.5"]
    assert parse_faults(texts) == Faults(
        latency=0.25, rate_limited=0.1, failing=0, drop_after_create=1, cancel_failing=0.5
    )
    assert parse_faults([]) == Faults()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("late=1", "no fault 'late'; known are latency, rate_limited, failing, drop_after_create, cancel_failing"),
        ("chance=1", "no fault 'chance'"),
        ("failing", "'' is not a number; write failing=0.5"),
        ("failing=often", "'often' is not a number"),
        ("failing=1.5", "failing=1.5: give a probability between 0 and 1"),
        ("failing=nan", "failing=nan: give a probability"),
        ("latency=-1", "latency=-1.0: give seconds, 0 or more"),
        ("latency=inf", "latency=inf: give seconds"),
    ],
)
def test_a_wrong_fault_is_named_with_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_faults([text])


def test_a_fault_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="failing is given twice"):
        parse_faults(["failing=0.1", "failing=0.2"])
