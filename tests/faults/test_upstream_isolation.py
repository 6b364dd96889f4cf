"""One tenant's dead upstream is nobody else's trouble, and what was not asked of upstream costs a user nothing."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from faults.stack import Stack, running, tenant
from service.upstream.breaker import THRESHOLD
from support.processes import deaf_port
from support.scripted import Play, Upstream, ends, says, scripted

HANGS = Play(then="hang")
DAILY = {"mints": ["1/day"]}


def session(number: int = 1) -> Play:
    return says(200, {"id": f"cksess_{number}", "client_secret": f"ek_{number}"})


def at(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.port}/v1"


def told(answer: httpx2.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (neither a file nor the server has an event for it)
            await asyncio.sleep(0.005)


async def received(upstream: Upstream, count: int) -> None:
    """Wait until upstream has read so many requests."""
    await until(lambda: len(upstream.received) >= count)


def let_go(upstream: Upstream) -> None:
    """End the connections that hang."""
    for task in upstream.serving:
        if task:
            task.cancel()


async def test_a_tenant_whose_upstream_hangs_slows_nobody_elses_mints(redis: Redis, tmp_path: Path) -> None:
    """Past its bound a tenant is refused at once; the others don't notice."""
    async with (
        scripted(*[HANGS] * 4) as dead,
        scripted(*map(session, range(20))) as good,
        running(
            redis,
            tmp_path,
            tenant("acme", at(dead), max_concurrent=4),
            tenant("globex", at(good)),
            upstream_timeout=20,
            upstream_read_timeout=20,
            upstream_deadline=20,
        ) as stack,
    ):
        hanging = [asyncio.create_task(stack.mint("acme")) for _ in range(4)]
        await received(dead, 4)
        started = time.perf_counter()
        refused = [await stack.mint("acme") for _ in range(8)]
        minted = [await stack.mint("globex") for _ in range(20)]
        assert time.perf_counter() - started < 10  # half of what one of the hanging ones would take
        assert {told(answer) for answer in refused} == {(503, "overloaded")}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {told(answer) for answer in minted} == {(200, None)}
        assert not any(task.done() for task in hanging)
        assert dead.connections == 4
        let_go(dead)
        assert {told(answer) for answer in await asyncio.gather(*hanging)} == {(503, "upstream_unavailable")}


async def test_a_place_is_held_until_the_mint_has_ended_not_only_until_its_caller_left(
    redis: Redis, tmp_path: Path
) -> None:
    async with (
        scripted(HANGS) as upstream,
        running(
            redis,
            tmp_path,
            tenant("acme", at(upstream), max_concurrent=1, quota=DAILY),
            upstream_timeout=20,
            upstream_read_timeout=20,
            upstream_deadline=20,
        ) as stack,
    ):
        leaving = asyncio.create_task(stack.mint())
        await received(upstream, 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert told(await stack.mint(subject="bob")) == (503, "overloaded")
        # A reload counts them on: nobody's place is lost with the tenant's old policy.
        assert stack.app.state.policies.reload()
        assert told(await stack.mint(subject="bob")) == (503, "overloaded")
        let_go(upstream)
        upstream.plays.append(session())
        assert told(await eventually(stack, "bob", 503)) == (200, None)


async def eventually(stack: Stack, subject: str, status: int) -> httpx2.Response:
    """Mint until the answer is no longer *status*."""
    async with asyncio.timeout(5):
        answer = await stack.mint(subject=subject)
        while answer.status_code == status:
            await asyncio.sleep(0.01)
            answer = await stack.mint(subject=subject)
    return answer


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.upstream.retry.FIRST", 0.001)
    monkeypatch.setattr("service.upstream.breaker.FIRST", 0.3)


@pytest.mark.usefixtures("short_waits")
async def test_a_connection_that_was_refused_uses_up_no_limit(redis: Redis, tmp_path: Path) -> None:
    async with running(redis, tmp_path, tenant("acme", f"http://127.0.0.1:{deaf_port()}/v1", quota=DAILY)) as stack:
        for _ in range(2):
            assert told(await stack.mint(subject="bob")) == (503, "upstream_unavailable")


@pytest.mark.parametrize("play", [says(500), Play(then="close")], ids=["failed", "lost"])
async def test_what_upstream_was_asked_uses_up_a_limit(redis: Redis, tmp_path: Path, play: Play) -> None:
    async with (
        scripted(play) as upstream,
        running(redis, tmp_path, tenant("acme", at(upstream), quota=DAILY)) as stack,
    ):
        assert told(await stack.mint(subject="bob")) == (503, "upstream_unavailable")
        assert told(await stack.mint(subject="bob")) == (429, "rate_limited")


@pytest.mark.usefixtures("short_waits")
async def test_a_mint_that_was_held_back_uses_up_no_limit(redis: Redis, tmp_path: Path) -> None:
    async with (
        scripted(*[ends(500)] * THRESHOLD, session()) as upstream,
        running(redis, tmp_path, tenant("acme", at(upstream), quota=DAILY)) as stack,
    ):
        for _ in range(THRESHOLD):
            assert told(await stack.mint()) == (503, "upstream_unavailable")
        answer = await stack.mint(subject="bob")
        assert told(answer) == (503, "upstream_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert len(upstream.received) == THRESHOLD
        counted = await stack.counted("upstream_calls")
        assert (counted["create 500"], counted["create open"]) == (THRESHOLD, 1)
        assert (await stack.counted("orphans")).total() == THRESHOLD
        assert (await stack.counted("upstream_breaker_opens")).total() == 1
        assert told(await eventually(stack, "bob", 503)) == (200, None)


async def test_a_new_key_is_used_as_soon_as_its_file_holds_it(redis: Redis, tmp_path: Path) -> None:
    """Rotated at upstream first or here first: either way every mint succeeds."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("sk-1")
    new.write_text("sk-2")
    keys = [{"file": str(new)}, {"file": str(old)}]
    refuses = says(401)
    async with (
        scripted(refuses, *map(session, range(3))) as upstream,
        running(redis, tmp_path / "config", tenant("acme", at(upstream), api_key=keys)) as stack,
    ):
        policies = stack.app.state.policies
        version = policies.current.version
        assert told(await stack.mint()) == (200, None)
        assert told(await stack.mint()) == (200, None)
        old.write_text("sk-3")
        await until(
            lambda: "sk-3" in map(SecretStr.get_secret_value, policies.current.tenants["acme"].account.api_keys)
        )
        assert policies.current.version == version
        assert told(await stack.mint()) == (200, None)
        shown = [request.headers["authorization"].removeprefix("Bearer ") for request in upstream.received]
        assert shown == ["sk-2", "sk-1", "sk-1", "sk-2"]
