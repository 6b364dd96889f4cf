"""Work that must go on goes on, whatever it raises."""

import asyncio

import httpx2
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service import background
from service.background import for_ever, until_done
from service.errors import StoreUnavailable
from service.identity import keys as keys_module
from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.store import eviction
from service.store.connect import RedisGuard
from service.store.eviction import warn_of_eviction


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.01)


class Work:
    """Raises these one after the other, and then succeeds."""

    def __init__(self, *raises: Exception) -> None:
        self._raises = iter(raises)
        self.done = asyncio.Event()
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1
        for error in self._raises:
            raise error
        self.done.set()


async def test_it_is_tried_until_it_succeeds() -> None:
    work = Work(StoreUnavailable("away"), StoreUnavailable("away"), ValueError("sk-secret"))
    with capture_logs() as logs:
        await until_done(work, failed="not_done")
    assert work.times == 4
    # What is known to happen is told once, a defect each time, and never its message.
    assert [(line["event"], line["log_level"]) for line in logs] == [("not_done", "warning"), ("not_done", "error")]
    assert "sk-secret" not in str(logs)


async def test_for_ever_outlives_a_defect() -> None:
    work = Work(ValueError(), TypeError())
    task = asyncio.create_task(for_ever(work, every=0.01, failed="not_done"))
    async with asyncio.timeout(5):
        await work.done.wait()
        while work.times < 6:  # noqa: ASYNC110  (a count, and no event)
            await asyncio.sleep(0.01)
    task.cancel()


async def test_keys_are_looked_after_whatever_one_look_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyCache(httpx2.MockTransport(lambda _: httpx2.Response(500)), Metrics())
    work = Work(RuntimeError("dictionary changed size during iteration"))
    monkeypatch.setattr(keys, "refresh_due", work)
    monkeypatch.setattr(keys_module, "ROUND", 0.01)
    task = asyncio.create_task(keys.run())
    async with asyncio.timeout(5):
        await work.done.wait()
    task.cancel()


async def test_redis_is_asked_again_whatever_one_answer_raises(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(RuntimeError("an answer of a kind that nobody expected"))

    async def policy(_server: Redis) -> str:
        await work()
        return "allkeys-lru"

    monkeypatch.setattr(eviction, "_policy", policy)
    with capture_logs() as logs:
        async with asyncio.timeout(5):
            await warn_of_eviction(redis, RedisGuard(Metrics(), deadline=2))
    assert [line["event"] for line in logs] == ["eviction_not_checked", "redis_may_evict"]
