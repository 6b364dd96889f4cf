"""The life of a session: what is kept of it, how it ends, and what happens without Redis."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chatkit_sessions.record import session_id, session_key
from service.upstream.authority.sessions import Authority
from service.upstream.authority.wire import WireError

PROJECT = "proj_acme"
BODY: dict[str, Any] = {"user": "acme:ada", "workflow": {"id": "wf_support"}}


def lasting(seconds: int) -> dict[str, Any]:
    return BODY | {"expires_after": {"anchor": "created_at", "seconds": seconds}}


async def test_ids_and_secrets_never_repeat(authority: Authority) -> None:
    made = [await authority.create(PROJECT, BODY) for _ in range(50)]
    assert len({session["id"] for session in made}) == 50
    assert len({session["client_secret"] for session in made}) == 50


async def everything(redis: Redis) -> bytes:
    """All keys and values, as one text to search."""
    return repr([(key, await redis.hgetall(key)) async for key in redis.scan_iter()]).encode()


async def test_the_secret_is_nowhere_in_redis(authority: Authority, redis: Redis) -> None:
    session = await authority.create(PROJECT, BODY)
    secret = session["client_secret"]
    for _ in range(2):
        kept = await everything(redis)
        assert session["id"].encode() in kept
        assert secret.removeprefix("ek_mint_").encode() not in kept
        await authority.cancel(PROJECT, session["id"])


async def test_a_secret_leads_to_its_session_and_the_session_not_to_its_secret(authority: Authority) -> None:
    session = await authority.create(PROJECT, BODY)
    secret = session["client_secret"]
    assert session_id(secret) == session["id"]
    assert hashlib.sha256(secret.encode()).hexdigest()[:48] not in session["id"], "a hash of its own, used nowhere else"
    assert session_id(secret + "x") != session["id"]


async def test_every_key_ends_by_itself_after_its_session(authority: Authority, redis: Redis) -> None:
    session = await authority.create(PROJECT, lasting(100))
    (key,) = [key async for key in redis.scan_iter()]
    assert key.decode() == session_key(session["id"])
    assert 3690 < await redis.ttl(key) <= 3700


async def test_cancel_answers_the_session_cancelled_and_without_its_secret(authority: Authority) -> None:
    workflow = {"id": "wf_support", "state_variables": {"plan": "pro", "ratio": 1.0}}
    session = await authority.create(PROJECT, BODY | {"workflow": workflow})
    del session["client_secret"]
    cancelled = session | {"status": "cancelled"}
    assert await authority.cancel(PROJECT, session["id"]) == cancelled
    assert await authority.find(session["id"]) == cancelled


async def test_cancel_keeps_the_records_end(authority: Authority, redis: Redis) -> None:
    session = await authority.create(PROJECT, BODY)
    key = session_key(session["id"])
    await redis.expire(key, 100)
    await authority.cancel(PROJECT, session["id"])
    assert 90 < await redis.ttl(key) <= 100


async def test_cancel_can_be_repeated_even_after_the_sessions_end(authority: Authority, clock: SimpleNamespace) -> None:
    session = await authority.create(PROJECT, BODY)
    first = await authority.cancel(PROJECT, session["id"])
    assert await authority.cancel(PROJECT, session["id"]) == first
    clock.now += 601
    assert await authority.cancel(PROJECT, session["id"]) == first


async def test_cancels_at_the_same_time_all_succeed(authority: Authority) -> None:
    session = await authority.create(PROJECT, BODY)
    answers = await asyncio.gather(*(authority.cancel(PROJECT, session["id"]) for _ in range(20)))
    assert {answer["status"] for answer in answers} == {"cancelled"}


async def test_a_session_is_expired_from_its_very_second(authority: Authority, clock: SimpleNamespace) -> None:
    session = await authority.create(PROJECT, BODY)
    clock.now = session["expires_at"] - 0.001
    assert (await authority.sessions())[0]["status"] == "active"
    clock.now = float(session["expires_at"])
    assert (await authority.sessions())[0]["status"] == "expired"


async def test_an_expired_session_cannot_be_cancelled(authority: Authority, clock: SimpleNamespace) -> None:
    session = await authority.create(PROJECT, BODY)
    clock.now += 600
    with pytest.raises(WireError) as refused:
        await authority.cancel(PROJECT, session["id"])
    assert (refused.value.status, refused.value.code) == (400, "session_expired")
    found = await authority.find(session["id"])
    assert found
    assert found["status"] == "expired"


async def test_another_projects_session_reads_as_unknown(authority: Authority) -> None:
    session = await authority.create(PROJECT, BODY)
    for project, identity in (("proj_other", session["id"]), (PROJECT, "cksess_nobody")):
        with pytest.raises(WireError) as refused:
            await authority.cancel(project, identity)
        assert refused.value.status == 404
        assert refused.value.message == f"Session with id '{identity}' not found."
    assert (await authority.sessions())[0]["status"] == "active"


async def test_an_unknown_session_is_not_found(authority: Authority) -> None:
    assert await authority.find("cksess_nobody") is None
    assert await authority.sessions() == []


async def test_sessions_lists_them_by_their_end_without_secrets(authority: Authority) -> None:
    made = [await authority.create(PROJECT, lasting(s)) for s in (300, 100, 200)]
    listed = await authority.sessions()
    assert [session["id"] for session in listed] == [made[n]["id"] for n in (1, 2, 0)]
    assert all(session.keys() == made[0].keys() - {"client_secret"} for session in listed)


Call = Callable[[Authority], Awaitable[object]]
CALLS: list[Call] = [
    lambda authority: authority.create(PROJECT, BODY),
    lambda authority: authority.cancel(PROJECT, "cksess_1"),
    lambda authority: authority.find("cksess_1"),
    lambda authority: authority.sessions(),
]


@pytest.mark.parametrize("call", CALLS, ids=["create", "cancel", "find", "sessions"])
async def test_redis_down_is_unavailable_without_a_hint_to_retry(tmp_path: Path, call: Call) -> None:
    retry = Retry(NoBackoff(), 0)
    async with Redis(unix_socket_path=str(tmp_path / "none.sock"), retry=retry) as gone:
        with pytest.raises(WireError) as refused:
            await call(Authority(gone))
    assert (refused.value.status, refused.value.code) == (503, "store_unavailable")
    assert "retry-after" not in refused.value.headers


@pytest.mark.parametrize("call", CALLS, ids=["create", "cancel", "find", "sessions"])
async def test_a_silent_redis_is_waited_for_no_longer_than_our_patience(tmp_path: Path, call: Call) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = str(tmp_path / "silent.sock")
    server = await asyncio.start_unix_server(silent, path)
    async with server, asyncio.timeout(2), Redis(unix_socket_path=path) as deaf:
        with pytest.raises(WireError) as refused:
            await call(Authority(deaf, patience=0.05))
    assert refused.value.status == 503
