"""Both verifiers: what they let through, what they count, and how soon they hear of a cancel."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from redis.asyncio import Redis

from authority.parts import KEY, issue, on_a_port
from chatkit_sessions import http
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.record import lua
from chatkit_sessions.redis import RedisVerifier
from chatkit_sessions.session import NotActive, Refused, TooManyRequests, Unavailable, UploadRefused
from chatkit_sessions.verifier import Verifier
from chatkit_sessions.watch import EVERY, Watch
from service.upstream.authority.sessions import Authority
from service.upstream.authority.wire import WireError


async def test_a_live_session_is_known_by_its_secret(verifier: Verifier, authority: Authority) -> None:
    made = await issue(authority)
    secret = made.pop("client_secret")
    session = await verifier.verify(secret)
    assert session.public() == made
    assert (session.tenant, session.user, session.may_upload, session.recent_threads) == ("acme", "ada", False, None)
    assert secret not in repr(session)


@pytest.mark.parametrize("secret", ["", "ek_nobody", "\udcff", "\x00", "x" * 5000])
async def test_nobodys_secret(verifier: Verifier, secret: str) -> None:
    with pytest.raises(NotActive):
        await verifier.verify(secret)


async def counted(verifier: Verifier, secret: str, tries: int) -> int:
    got = await asyncio.gather(*(verifier.verify(secret) for _ in range(tries)), return_exceptions=True)
    assert all(isinstance(each, TooManyRequests) for each in got if isinstance(each, BaseException)), got
    return sum(not isinstance(each, BaseException) for each in got)


async def test_no_more_than_the_limit_over_several_servers(redis: Redis, mint_url: str, authority: Authority) -> None:
    for limit in (10, 200):
        made = await issue(authority, rate_limits={"max_requests_per_1_minute": limit})
        servers: list[Verifier] = [RedisVerifier(redis), *(HTTPVerifier(mint_url, KEY, deadline=10) for _ in range(2))]
        let_through = 0
        for _ in range(4):
            let_through += sum(
                await asyncio.gather(*(counted(server, made["client_secret"], limit // 8) for server in servers))
            )
        assert let_through <= limit
        assert let_through >= 0.8 * limit, "what one takes ahead and doesn't use is lost to the others, and is little"
        assert await counted(servers[0], made["client_secret"], limit) <= limit - let_through
        with pytest.raises(TooManyRequests) as refused:
            await servers[0].verify(made["client_secret"])
        assert refused.value.retry_after
        assert 50 <= refused.value.retry_after <= 60 + http.KEPT
        for server in servers:
            await server.aclose()


async def test_a_busy_session_asks_seldom(mint_url: str, redis: Redis, authority: Authority) -> None:
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": 1000})
    verifier = HTTPVerifier(mint_url, KEY)
    before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    for _ in range(300):
        await verifier.verify(made["client_secret"])
    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 60, "the service's own scripts among them"
    await verifier.aclose()


async def until_refused(
    verify: Callable[[], Awaitable[Any]], within: float, refusal: type[Refused] = NotActive
) -> float:
    started = time.monotonic()
    while time.monotonic() - started < within:
        try:
            await verify()
        except refusal:
            return time.monotonic() - started
        await asyncio.sleep(0.005)
    raise AssertionError("still let through")


async def test_a_cancel_empties_what_is_kept_within_a_second(verifier: Verifier, authority: Authority) -> None:
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": 100_000})
    for _ in range(40):
        await verifier.verify(made["client_secret"])
    await authority.cancel("acme", made["id"])
    assert await until_refused(lambda: verifier.verify(made["client_secret"]), 2.0) < 1.0


async def test_a_session_that_expires_is_let_through_no_more(verifier: Verifier, authority: Authority) -> None:
    made = await issue(authority, expires_after={"anchor": "created_at", "seconds": 1})
    await verifier.verify(made["client_secret"])
    await asyncio.sleep(max(0.0, made["expires_at"] - time.time()) + 0.9)
    with pytest.raises(NotActive):
        await verifier.verify(made["client_secret"])


async def test_nothing_kept_is_used_while_the_authority_is_silent(authority: Authority, mint_url: str) -> None:
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": 100_000})

    async def gone(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(3600)

    verifier = HTTPVerifier(mint_url, KEY, deadline=0.3)
    for _ in range(50):
        await verifier.verify(made["client_secret"])
    async with on_a_port(gone, "off") as silent:
        verifier._base = verifier._base.replace(mint_url, silent)
        assert await until_refused(lambda: verifier.verify(made["client_secret"]), 3.0, Unavailable) < 1.4
        await verifier.aclose()


async def test_without_redis_nobody_is_let_through_and_soon(tmp_path: Path) -> None:
    for redis in (f"unix://{tmp_path}/nobody.sock", "redis://127.0.0.1:1/0"):
        verifier = RedisVerifier(redis)
        started = time.monotonic()
        for question in (verifier.verify("ek_x"), verifier.ended(["cksess_1"])):
            with pytest.raises(Unavailable) as refused:
                await question
            assert refused.value.retry_after == 1
        assert time.monotonic() - started < 2.5
        await verifier.aclose()


async def test_an_authority_that_refuses_us_or_talks_nonsense_is_no_yes(mint_url: str, authority: Authority) -> None:
    made = await issue(authority)
    wrong_key = HTTPVerifier(mint_url, "cmk_wrong")
    with pytest.raises(Unavailable):
        await wrong_key.verify(made["client_secret"])
    await wrong_key.aclose()
    for body in (b"[]", b"yes", b'{"active": true}', b'{"active": true, "tenant": "a", "session": 1, "requests": 1}'):

        async def nonsense(_scope: Any, _receive: Any, send: Any, body: bytes = body) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        async with on_a_port(nonsense, "off") as url:
            verifier = HTTPVerifier(url, KEY)
            with pytest.raises(Unavailable):
                await verifier.verify(made["client_secret"])
            await verifier.aclose()


async def test_uploads_are_counted_for_all_servers(verifier: Verifier, redis: Redis, authority: Authority) -> None:
    made = await issue(authority, chatkit_configuration={"file_upload": {"enabled": True, "max_files": 3}})
    session = await verifier.verify(made["client_secret"])
    await RedisVerifier(redis).take_upload(session, 10)
    await verifier.take_upload(session, 10)
    with pytest.raises(UploadRefused):
        await verifier.take_upload(session, 513 * 2**20)
    await verifier.take_upload(session, 512 * 2**20)
    with pytest.raises(UploadRefused):
        await verifier.take_upload(session, 1)


@pytest.mark.parametrize("ahead", [0, 8])
async def test_a_cancel_counts_whatever_clock_it_was_asked_by(verifier: Verifier, redis: Redis, ahead: int) -> None:
    """To the service a session may be over while Redis, which is asked who is live, is still before its end."""
    made = await issue(Authority(redis), expires_after={"anchor": "created_at", "seconds": 5})
    service = Authority(redis, clock=lambda: time.time() + ahead)
    with suppress(WireError):
        await service.cancel("acme", made["id"])
    with pytest.raises(NotActive):
        await verifier.verify(made["client_secret"])
    assert await verifier.ended([made["id"]]) == {made["id"]}


class Slow:
    """An authority with a slow line: it knows the truth when it is asked, and its answers are late."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.asked_about: list[str] = []
        self.verify = self.ended = 0.0

    def verifier(self) -> HTTPVerifier:
        return HTTPVerifier("http://x", "k", client=httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer)))

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/verify"):
            identity = parse_qs(request.content.decode())["token"][0]
            session = {"id": identity, "user": "ada", "expires_at": 2**40, "workflow": {"id": "wf"}}
            grants = {"max_requests_per_1_minute": 100_000, "chatkit_configuration": {}}
            active = identity not in self.cancelled
            told = {"active": active, "tenant": "acme", "requests": 1000, "session": {**session, **grants}}
            late = self.verify
        else:
            self.asked_about = json.loads(request.content)["ids"]
            told, late = {"ended": [each for each in self.asked_about if each in self.cancelled]}, self.ended
        await asyncio.sleep(late)
        return httpx2.Response(200, json=told)


async def test_an_answer_that_was_long_under_way_is_not_used_for_long() -> None:
    """Whoever is verified just before a cancel: their second begins with the cancel, not with the answer."""
    slow = Slow()
    verifier = slow.verifier()
    await verifier.verify("somebody else, about whom the watch asks")
    slow.verify, slow.ended = 0.9, 0.55
    for number in range(3):
        answering = asyncio.create_task(verifier.verify(f"s{number}"))
        await asyncio.sleep(0.01)
        slow.cancelled.add(f"s{number}")
        cancelled = time.monotonic()
        await answering
        slow.verify = 0.0
        await until_refused(lambda number=number: verifier.verify(f"s{number}"), 3)  # type: ignore[misc]
        assert time.monotonic() - cancelled < 1.0
        slow.verify = 0.9
        await asyncio.sleep(0.1)
    await verifier.aclose()


@pytest.mark.parametrize("late", [0.0, 0.2, 0.4, 0.55])
async def test_a_cancel_just_after_a_question_is_heard_of_within_a_second(late: float) -> None:
    gone = set[str]()

    async def ended(ids: Collection[str]) -> set[str]:
        answer = gone.intersection(ids)
        await asyncio.sleep(late)
        return answer

    watch, heard = Watch(ended), asyncio.Event()
    watch.follow("one", heard.set)
    await asyncio.sleep(EVERY + 0.02)
    gone.add("one")
    cancelled = time.monotonic()
    await heard.wait()
    assert time.monotonic() - cancelled < 1.0
    await watch.aclose()


async def test_nobody_asks_about_those_that_come_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEPT", 0.5)
    slow = Slow()
    verifier = slow.verifier()
    for number in range(20):
        await verifier.verify(f"s{number}")
    await asyncio.sleep(0.4)
    assert len(slow.asked_about) == 20
    await verifier.verify("s0")
    await asyncio.sleep(0.5)
    await verifier.verify("s0")
    await asyncio.sleep(0.4)
    assert slow.asked_about == ["s0"]
    await verifier.aclose()


async def test_a_burst_waits_for_its_turn(redis_socket: Path, authority: Authority) -> None:
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": 100_000})
    verifier = RedisVerifier(f"unix://{redis_socket}", deadline=5)
    assert await counted(verifier, made["client_secret"], 500) == 500
    await verifier.aclose()


@pytest.mark.parametrize("requests", ["1001", "0000001001", "0" * 5000 + "1", "-1", "1.0", "\u0661"])
async def test_no_more_are_taken_at_once_than_is_said(mint_url: str, authority: Authority, requests: str) -> None:
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": 100_000})
    async with httpx2.AsyncClient(base_url=mint_url, headers={"authorization": f"Bearer {KEY}"}) as client:
        form = {"token": made["client_secret"], "requests": requests}
        answer = await client.post("/v1/chatkit/sessions/verify", data=form)
    assert answer.status_code == 400
    assert answer.json()["field"] == "requests"


async def test_what_is_taken_ahead_breaks_no_limit_of_any_minute(redis: Redis, authority: Authority) -> None:
    """Servers take requests ahead, and use them as late as they may: just before a minute's beginning is forgotten."""
    limit, now, came = 100, 1_000_000.0, list[float]()
    made = await issue(authority, rate_limits={"max_requests_per_1_minute": limit})
    verifier = RedisVerifier(redis)
    timed = lua("verify").replace("redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')")
    assert timed != lua("verify")
    verifier._verify = redis.register_script(timed)

    async def at(moment: float, wanted: int) -> int:
        await redis.hset("clock", mapping={"s": int(moment), "us": round(moment % 1 * 1_000_000)})
        try:
            return (await verifier.take(made["id"], wanted))[1]
        except TooManyRequests:
            return 0

    for _ in range(5):
        granted = await at(now, limit // http.AHEAD)
        came += [now, *[now + http.KEPT] * (granted - 1)]
    for half in range(4, 250):
        while await at(now + half / 2, 1):
            came.append(now + half / 2)
    assert len(came) >= 1.5 * limit, "and nobody is kept out for long"
    assert max(sum(start <= each < start + 60 for each in came) for start in came) <= limit
