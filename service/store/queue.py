"""The cancel queue: who has sessions that must still be cancelled, and when to try again.

The list of due users lives in other slots than the users' queues. So the list is written first: a name too many on
it is harmless, one too few is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from service.observe.metrics import Metrics
from service.session import Live
from service.store.connect import store_errors
from service.store.records import SHARDS, Queued, UserKeys, due_shard, read_queued, write_record
from service.store.scripts import lua
from service.store.sessions import KEEP

LISTED: Final = 3600
"""Seconds that a shard of the due list stands after its last entry: past the end of any session."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A user whose cancels this process has taken on, until the claim's time is over."""

    keys: UserKeys
    score: str


class CancelQueue:
    """Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._schedule = redis.register_script(lua("schedule"))
        self._enqueue = redis.register_script(lua("enqueue"))
        self._settle = redis.register_script(lua("settle"))
        self._claim = redis.register_script(lua("claim"))
        self._release = redis.register_script(lua("release"))

    async def schedule(self, keys: UserKeys, *, delay: float) -> Claim:
        """List the user as due in *delay* seconds, and before anything is queued for it; return the claim."""
        async with store_errors(self._metrics):
            score: bytes = await self._schedule([keys.due], [keys.tag, int(delay * 1000), LISTED])
        return Claim(keys, score.decode())

    async def put(self, keys: UserKeys, live: Live, *, reason: str) -> Queued:
        """Queue a session that was never recorded as live."""
        entry = f"0|{reason}|{write_record(live, 0)}"
        async with store_errors(self._metrics):
            await self._enqueue([keys.queue], [live.id, entry, live.expires_at, KEEP])
        return Queued(live.id, 0, reason, live)

    async def claim(self, *, hidden: float, most: int) -> list[Claim]:
        """Take up to *most* due users a shard; other sweepers don't see them for *hidden* seconds."""
        async with store_errors(self._metrics):
            answers = [
                await self._claim([due_shard(number)], [int(hidden * 1000), most]) for number in range(SHARDS)
            ]
        return [
            Claim(UserKeys(answer[i].decode()), answer[i + 1].decode())
            for answer in answers
            for i in range(0, len(answer), 2)
        ]

    async def queued(self, keys: UserKeys) -> list[Queued]:
        """Return the user's sessions that must still be cancelled."""
        async with store_errors(self._metrics):
            entries: Any = await self._redis.hgetall(keys.queue)
        return [read_queued(name.decode(), entry.decode()) for name, entry in entries.items()]

    async def settle(self, keys: UserKeys, done: Sequence[str], failed: Sequence[Queued]) -> None:
        """Forget what was confirmed or has expired, and count an attempt for what failed."""
        entries = [
            word
            for each in failed
            for word in (each.id, f"{each.attempts + 1}|{each.reason}|{write_record(each.live, 0)}")
        ]
        async with store_errors(self._metrics):
            await self._settle([keys.queue], [len(done), *done, *entries])

    async def release(self, claim: Claim, *, delay: float | None) -> None:
        """Give a user back: due again in *delay* seconds, or (None) with nothing left to do."""
        milliseconds = -1 if delay is None else int(delay * 1000)
        async with store_errors(self._metrics):
            await self._release([claim.keys.due], [claim.keys.tag, claim.score, milliseconds])
