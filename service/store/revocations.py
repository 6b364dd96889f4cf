"""How far the revocation of a tenant is: kept in Redis, so that any replica goes on where another stopped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from service.store.connect import RedisGuard
from service.store.pipeline import Pipeline
from service.store.records import UserKeys
from service.store.scripts import lua

UNDER_WAY: Final = "cm:revocations"
"""The set of tenants whose revocation is not done."""
TURN: Final = 10.0
"""Seconds after which another replica goes on, where the one that had its turn is silent."""
KEPT: Final = 7 * 86_400
"""Seconds that what became of a revocation can be read."""
REASON: Final = "tenant_revoked"
"""Why these sessions are queued; `settle.lua` counts by it."""
_OF_THIS: Final = re.compile(rb"\d+\|%b\|" % REASON.encode())


@dataclass(frozen=True, slots=True)
class Progress:
    """A tenant's revocation. Times are Unix seconds; the counts are sessions.

    First every user is `fencing`, which is quick; then it is `cancelling` at the bounded rate, then `done`.
    """

    state: str
    rate: float
    started_at: int
    finished_at: int | None
    sessions: int
    cancelled: int
    failed: int
    """Ended by themselves before upstream confirmed."""
    round: int = 1
    """How often its users have been gone through: once more each time that it is asked for while it is under way."""

    @property
    def remaining(self) -> int:
        """Sessions queued of which nobody knows yet."""
        return self.sessions - self.cancelled - self.failed


class RevocationStore:
    """Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard, pipeline: Pipeline) -> None:
        self._redis: Any = redis  # redis-py's types leave open whether these answer now or later
        self._guard = guard
        self._pipeline = pipeline
        self._sessions = redis.register_script(lua("sessions_revoked"))
        self._begin = redis.register_script(lua("begin_revocation"))
        self._count = redis.register_script(lua("count_revoked"))
        self._close = redis.register_script(lua("close_revoked"))
        self._advance = redis.register_script(lua("advance_revocation"))
        self._turn = redis.register_script(lua("take_turn"))

    async def begin(self, tenant: str, *, rate: float) -> None:
        """Begin, or go through the users once more, unless that is under way; *rate* is in sessions a second."""
        async with self._guard():
            # First the list by which replicas find it: a name too many on it is harmless.
            await self._redis.sadd(UNDER_WAY, tenant)
            await self._begin([_job(tenant)], [str(rate)])
            # And again: whoever finds a name and no job takes it off.
            await self._redis.sadd(UNDER_WAY, tenant)

    async def resume(self, tenant: str) -> None:
        """See that replicas find it: the list of tenants lies elsewhere in a Cluster, and may be lost alone."""
        async with self._guard():
            await self._redis.sadd(UNDER_WAY, tenant)

    async def progress(self, tenant: str) -> Progress | None:
        """Return how far it is; None where there is none."""
        async with self._guard():
            fields: dict[bytes, bytes] = await self._redis.hgetall(_job(tenant))
        if b"state" not in fields:
            return None
        told = {name.decode(): value.decode() for name, value in fields.items()}
        return Progress(
            state=told["state"],
            rate=float(told["rate"]),
            started_at=int(told["started"]),
            finished_at=int(told["finished"]) if "finished" in told else None,
            sessions=int(told["sessions"]),
            cancelled=int(told["cancelled"]),
            failed=int(told["failed"]),
            round=int(told.get("round", 1)),
        )

    async def under_way(self) -> list[str]:
        """Return the tenants whose revocation is not done."""
        async with self._guard():
            return sorted(name.decode() for name in await self._redis.smembers(UNDER_WAY))

    async def take_turn(self, tenant: str, replica: str) -> bool:
        """Return whether *replica* is the one to work on it for the next `TURN` seconds."""
        async with self._guard():
            return bool(await self._turn([f"cm:revocation:{{{tenant}}}:lock"], [replica, int(TURN * 1000)]))

    async def count(self, keys: UserKeys) -> int:
        """Count a user's sessions, settled ones too; return how many of the tenant are counted by now."""
        sessions: int = await self._pipeline.one(self._sessions, [keys.queue, keys.tally], [REASON])
        if not sessions:
            return 0
        counted: int = await self._pipeline.one(
            self._count, [_job(keys.tenant), _users(keys.tenant)], [keys.tag, sessions]
        )
        return counted

    async def users(self, tenant: str, cursor: int, *, most: int) -> tuple[int, list[UserKeys]]:
        """Return some users whose sessions are not known to have ended, and the cursor for more (0: no more)."""
        async with self._guard():
            after, found = await self._redis.hscan(_users(tenant), cursor, count=most)
        return int(after), [UserKeys(tag.decode()) for tag in found]

    async def close(self, tenant: str, users: Sequence[UserKeys]) -> None:
        """Count what became of the sessions of those users who have none queued any more."""
        async with self._guard():
            pipe = self._redis.pipeline(transaction=False)
            for keys in users:
                # In this order: what is settled in between is in neither, or in both.
                pipe.hvals(keys.queue)
                pipe.hget(keys.tally, "cancelled")
            answers = await pipe.execute()
        done = [
            (keys, int(cancelled or 0))
            for keys, queued, cancelled in zip(users, answers[::2], answers[1::2], strict=True)
            if not any(map(_OF_THIS.match, queued))
        ]
        if not done:
            return
        async with self._guard():
            await self._close(
                [_job(tenant), _users(tenant)], [word for keys, count in done for word in (keys.tag, count)]
            )
            pipe = self._redis.pipeline(transaction=False)
            for keys, _ in done:
                pipe.delete(keys.tally)
            await pipe.execute()

    async def advance(self, tenant: str, *, fenced: int) -> None:
        """Go on to cancelling if every user of round *fenced* is fenced, and to done if nothing is left to cancel."""
        async with self._guard():
            if await self._advance([_job(tenant), _users(tenant)], [KEPT, fenced]) in (b"done", None):
                await self._redis.srem(UNDER_WAY, tenant)
                # It may have begun anew in between.
                if await self._redis.hget(_job(tenant), "state") not in (b"done", None):
                    await self._redis.sadd(UNDER_WAY, tenant)


def _job(tenant: str) -> str:
    return f"cm:revocation:{{{tenant}}}:job"


def _users(tenant: str) -> str:
    return f"cm:revocation:{{{tenant}}}:users"
