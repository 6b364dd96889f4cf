"""Redis as it is with many live sessions, written by the store's own scripts or, for a million, in their form."""

import asyncio
import secrets
import time

from redis import Redis as PlainRedis
from redis.asyncio import Redis

from service.observe.metrics import Metrics
from service.principal import Principal
from service.session import Limits, Live
from service.store.connect import RedisGuard, connect
from service.store.pipeline import Pipeline
from service.store.records import Shard, UserKeys, login_mark, login_name, shard_of, write_record
from service.store.sessions import SessionStore

ISSUER, TENANT = "https://login.bench.example/", "tenant-0"
MEASURED = 20_000
STANDS = 3600
"""Seconds that what `fill` writes stands: longer than any measurement."""


def _principal(number: int, now: float) -> Principal:
    return Principal(TENANT, f"filler|{number:024d}", secrets.token_hex(8), now, now + 3600, claims={}, issuer=ISSUER)


def _live(principal: Principal, now: float) -> Live:
    user = f"{TENANT}:{principal.subject}"
    session = f"cksess_{secrets.token_hex(24)}"
    return Live(session, user, "wf_bench", login_mark(principal.login), now, int(now) + 600, now, "01234567")


def fill(url: str, count: int) -> None:
    """Write *count* live sessions, each of a user and a login of its own, as the scripts would have."""
    redis, now = PlainRedis.from_url(url), time.time()
    for start in range(0, count, 5_000):
        pipe = redis.pipeline(transaction=False)
        for number in range(start, min(start + 5_000, count)):
            principal = _principal(number, now)
            write(pipe, principal, _live(principal, now))
        pipe.execute()


def write(redis: PlainRedis, principal: Principal, live: Live) -> None:
    """Write what a mint leaves behind."""
    keys = UserKeys.of(principal.tenant, principal.subject)
    login = login_name(principal.issuer, principal.login or "")
    users, _ = Shard.of(principal.tenant, shard_of(login)).users
    redis.set(keys.live, f"\n{live.id}|{write_record(live)}", ex=STANDS)
    redis.hsetnx(users, "!", int(live.created_at))
    redis.hset(users, login, keys.digest)
    redis.expire(users, STANDS)


def bytes_each(url: str) -> dict[str, float]:
    """Return the bytes of Redis for a live session, and for a login that was logged out: a user each."""
    return asyncio.run(_bytes_each(url))


async def _bytes_each(url: str) -> dict[str, float]:
    redis, onlooker = connect(url, timeout=5, connections=20), connect(url, timeout=5, connections=1)
    guard = RedisGuard(Metrics(), deadline=10)
    store, now = SessionStore(redis, guard, Pipeline(redis, guard)), time.time()
    first, *people = [_principal(number, now) for number in range(MEASURED + 1)]

    async def mint(principal: Principal) -> None:
        admission = await store.admit(principal, Limits(), lease_seconds=30)
        await store.record(admission, _live(principal, now), Limits())

    async def log_out(principal: Principal) -> None:
        keys = UserKeys.of(TENANT, principal.subject)
        for each in await store.revoke(keys, login=principal.login, remember=86_400, reason="logout"):
            await redis.hdel(keys.queue, each.id)

    try:
        await _all(mint, [first])
        await _all(log_out, [first])  # Redis keeps the scripts, whoever mints
        await redis.connection_pool.disconnect()
        empty = await _used(onlooker)
        await _all(mint, people)
        await redis.connection_pool.disconnect()  # their buffers are nobody's session
        live = (await _used(onlooker) - empty) / MEASURED
        await _all(log_out, people)
        # What outlives the sessions is the fence; the lists of users end with them.
        async for key in redis.scan_iter(match="cm:tenant:*", count=5_000):
            await redis.unlink(key)
        await redis.connection_pool.disconnect()
        await asyncio.sleep(1)
        fenced = (await _used(onlooker) - empty) / MEASURED
    finally:
        await onlooker.aclose()
        await redis.aclose()
    return {"a live session": live, "a logged-out login": fenced}


async def _all(work: object, people: list[Principal]) -> None:
    assert callable(work)
    for start in range(0, len(people), 200):
        await asyncio.gather(*(work(each) for each in people[start : start + 200]))


async def _used(redis: Redis) -> int:
    used: int = (await redis.info("memory"))["used_memory"]
    return used
