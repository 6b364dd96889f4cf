"""The benchmark fills Redis without the scripts: with what they would have written."""

import time
from pathlib import Path

from redis import Redis as PlainRedis
from redis.asyncio import Redis

from bench.fill import _live, _principal, write
from service.observe.metrics import Metrics
from service.session import Limits
from service.store.connect import RedisGuard
from service.store.pipeline import Pipeline
from service.store.sessions import SessionStore


async def test_what_the_benchmark_fills_redis_with_is_what_a_mint_leaves(redis: Redis, redis_socket: Path) -> None:
    now = time.time()
    who = _principal(1, now)
    live = _live(who, now)
    guard = RedisGuard(Metrics(), deadline=5.0)
    store = SessionStore(redis, guard, Pipeline(redis, guard))
    await store.record(await store.admit(who, Limits(), lease_seconds=25), live, Limits())
    with PlainRedis(unix_socket_path=str(redis_socket)) as plain:
        minted = _content(plain)
        plain.flushall()
        write(plain, who, live)
        assert _content(plain) == minted


def _content(redis: PlainRedis) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for key in redis.scan_iter():
        if redis.type(key) == b"string":
            found[key] = redis.get(key)
        else:
            entries = redis.hgetall(key)
            found[key] = {name: value for name, value in entries.items() if name != b"!"}
            assert b"!" in entries
        assert redis.ttl(key) > 0
    assert len(found) == 2
    return found
