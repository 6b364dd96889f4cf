"""The cancel queue: who has sessions that must still be cancelled, and when to try again.

The list of due users lives in other slots than the users' queues. So the list is written first: a name too many on
it is harmless, one too few is not.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.session import Live
from service.store.connect import RedisGuard
from service.store.pipeline import Pipeline
from service.store.records import KEEP, SHARDS, Queued, UserKeys, due_shard, readable, since_shard, write_queued
from service.store.scripts import lua

LISTED_FOR: Final = 13.0
"""Seconds before a sweeper may look at a user who is listed first and queued for next: longer than two steps of Redis
may take, each its timeout (5 at most) and a quarter.
"""
LISTED: Final = 3600
"""Seconds that a shard of the due list stands after its last entry: past the end of any session."""


PUT_OFF: Final = 5000
"""Milliseconds until a backlog is looked at again."""
LOOKED_AT: Final = 2000
"""Users that one claim looks at in a shard, so that it takes Redis a few milliseconds at most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A user whose cancels this process has taken on, until the claim's time is over."""

    keys: UserKeys
    entries: tuple[tuple[str, str], ...]
    """Entry of the due list (the user's tag, with a `+` where it is the second) and score, of each that was claimed."""


class CancelQueue:
    """Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard, pipeline: Pipeline) -> None:
        self._redis = redis
        self._sets: Any = redis  # redis-py's types leave open whether these answer now or later
        self._guard = guard
        self._pipeline = pipeline
        self._schedule = redis.register_script(lua("schedule"))
        self._enqueue = redis.register_script(lua("enqueue"))
        self._settle = redis.register_script(lua("settle"))
        self._claim = redis.register_script(lua("claim"))
        self._release = redis.register_script(lua("release"))
        self._drop = redis.register_script(lua("drop"))

    async def schedule(self, keys: UserKeys, *, delay: float) -> Claim | None:
        """List the user as due in *delay* seconds or sooner: before anything is queued for it, and to hurry it.

        Where nobody had listed the user, return what proves it, as long as it holds.
        """
        score: bytes | None = await self._pipeline.one(
            self._schedule,
            [keys.due, keys.since],
            [keys.tag, int(delay * 1000), LISTED, int(LISTED_FOR * 1000)],
        )
        return None if score is None else Claim(keys, ((keys.tag, score.decode()),))

    async def hurry(self, keys: UserKeys, own: Claim | None, *, delay: float) -> None:
        """List the user as due in *delay* seconds: what it was listed for is queued now.

        While that listing is our *own* and nobody has listed the user since, it need not be looked at a second time.
        """
        if own is None or not await self.release(own, delay=delay):
            await self.schedule(keys, delay=delay)

    async def put(self, keys: UserKeys, live: Live, *, reason: str, since: float) -> None:
        """Queue a session that could not be recorded, and had to end then (*since*, Unix seconds)."""
        entry = write_queued(Queued(live.id, 0, reason, live, since))
        await self._pipeline.one(self._enqueue, [keys.live, keys.queue], [live.id, entry, live.expires_at, KEEP])

    async def forget(self, keys: UserKeys, *names: str) -> None:
        """Take sessions or leases off the live ones."""
        await self._pipeline.one(self._drop, [keys.live], names)

    async def claim(self, *, hidden: float, most: int, full: Sequence[str] = ()) -> list[Claim]:
        """Take about *most* due users a shard; other sweepers don't see them for *hidden* seconds.

        Users of tenants that are *full* are passed over, a backlog of theirs put off: it must not stand before
        everybody else's.

        Raises only where no shard can be reached: of a Cluster that lost a primary, the others' users are swept.
        """

        async def shard(number: int) -> list[bytes] | StoreUnavailable:
            try:
                taken: list[bytes] = await self._pipeline.one(
                    self._claim, [due_shard(number)], [int(hidden * 1000), most, PUT_OFF, LOOKED_AT, *full]
                )
            except StoreUnavailable as refusal:
                return refusal
            return taken

        found = await asyncio.gather(*(shard(number) for number in range(SHARDS)))
        answers = [answer for answer in found if not isinstance(answer, StoreUnavailable)]
        if not answers and isinstance(found[0], StoreUnavailable):
            raise found[0]
        users: dict[str, list[tuple[str, str]]] = {}
        for answer in answers:
            for entry, score in zip(answer[::2], answer[1::2], strict=True):
                users.setdefault(entry.decode().rstrip("+"), []).append((entry.decode(), score.decode()))
        return [Claim(UserKeys(tag), tuple(entries)) for tag, entries in users.items()]

    async def pending(self) -> tuple[int, float | None]:
        """Return how many users have something to cancel, and since when (Unix seconds) the first of them."""
        async with self._guard():
            counts = await asyncio.gather(*(self._redis.zcard(since_shard(number)) for number in range(SHARDS)))
            firsts: list[list[tuple[bytes, float]]] = await asyncio.gather(
                *(self._sets.zrange(since_shard(number), 0, 0, withscores=True) for number in range(SHARDS))
            )
        since = [score / 1000 for first in firsts for _, score in first]
        return sum(counts), min(since, default=None)

    async def queued(self, keys: UserKeys) -> list[Queued]:
        """Return the user's sessions that must still be cancelled."""
        # Not in the pipeline: a sweeper asks for hundreds at once, and mints would stand in line behind them.
        async with self._guard():
            entries: Any = await self._redis.hgetall(keys.queue)
        return readable(entries.items())

    async def settle(
        self, keys: UserKeys, confirmed: Sequence[str], over: Sequence[str], failed: Sequence[Queued]
    ) -> tuple[int, int]:
        """Forget what is confirmed or over, count an attempt for what failed.

        Return how many are left, and how many mints of the user are under way.
        """
        entries = [
            word for each in failed for word in (each.id, write_queued(replace(each, attempts=each.attempts + 1)))
        ]
        left, leases = await self._pipeline.one(
            self._settle,
            [keys.queue, keys.tally, keys.live],
            [len(confirmed), len(over), LISTED, *confirmed, *over, *entries],
        )
        return left, leases

    async def release(self, claim: Claim, *, delay: float | None, idle: bool = False) -> bool:
        """Give a claimed user back: due again in *delay* seconds, or (None) with nothing left to do.

        *idle*: nothing is queued, so that nothing has waited until now.

        Return whether it was still ours to give.
        """
        ours = False
        milliseconds = -1 if delay is None else int(delay * 1000)
        for entry, score in claim.entries:
            released = await self._pipeline.one(
                self._release, [claim.keys.due, claim.keys.since], [entry, score, milliseconds, int(idle)]
            )
            ours = bool(released) or ours
            milliseconds = -1  # once is enough
        return ours
