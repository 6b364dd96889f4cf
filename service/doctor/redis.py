"""Whether Redis is there, is new enough, and keeps what it is told."""

from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.doctor.findings import Finding, doubt, ok, wrong
from service.errors import StoreUnavailable
from service.store.cluster import Cluster
from service.store.connect import RedisGuard, probe
from service.store.private import NoRedis, find_redis_server

OLDEST: Final = (6, 2)
SUBJECT: Final = "redis"


def examine_private() -> list[Finding]:
    """Examine what `serve` would start, where no Redis is configured."""
    try:
        server = find_redis_server()
    except NoRedis as error:
        return [wrong(SUBJECT, "none is configured, and none can be started", str(error))]
    return [
        doubt(
            SUBJECT,
            f"none is configured: serve starts {server.name} of its own",
            "fine for one replica; set CHATKIT_MINT_REDIS_URL where there are several",
        )
    ]


async def examine_redis(redis: Redis, guard: RedisGuard) -> list[Finding]:
    """Examine the configured one."""
    try:
        async with guard():
            await probe(redis)
            servers = await redis.primaries() if isinstance(redis, Cluster) else [redis]
        told: list[Finding] = []
        for server in servers:
            told += await _server(server, guard)
    except StoreUnavailable as refusal:
        return [
            wrong(
                SUBJECT,
                refusal.reason or "does not answer",
                "is CHATKIT_MINT_REDIS_URL right, and reachable from here? Its password, TLS (rediss://) and port?",
            )
        ]
    return list(dict.fromkeys(told))  # a cluster's nodes are mostly alike


async def _server(server: Redis, guard: RedisGuard) -> list[Finding]:
    try:
        async with guard():
            told: Mapping[str, Any] = await server.info()
    except StoreUnavailable as refusal:
        if not isinstance(refusal.__cause__, ResponseError):
            raise
        return [doubt(SUBJECT, "answers, and may not be asked how it is kept", "let its user run INFO")]
    return [_version(told), *_eviction(told), *_persistence(told)]


def _version(told: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in told else "Redis"
    version = str(told.get("valkey_version") or told.get("redis_version") or "?")
    # Valkey tells the Redis version that it is compatible with, too.
    numbers = tuple(int(part) for part in str(told.get("redis_version", "")).split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST:
        return wrong(SUBJECT, f"{name} {version} is too old", "6.2 or newer, or Valkey")
    return ok(SUBJECT, f"{name} {version} answers, and takes writes")


def _eviction(told: Mapping[str, Any]) -> list[Finding]:
    policy = told.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    return [
        wrong(
            SUBJECT,
            f"maxmemory-policy is {policy}: under pressure it forgets who was logged out",
            "set maxmemory-policy noeviction",
        )
    ]


def _persistence(told: Mapping[str, Any]) -> list[Finding]:
    if told.get("aof_enabled"):
        return []
    return [
        doubt(
            SUBJECT,
            "it keeps no append-only file: a restart forgets who was logged out and what was still to be cancelled",
            "set appendonly yes; the README says what a loss costs",
        )
    ]
