"""Revoke a whole tenant: block first, then fence every user, then cancel at a bounded rate.

The cancels are the sweepers' work, spread over time by when each user is listed as due. What is done here, any replica
takes up where another stopped.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from service.background import for_ever
from service.contract import MAX_SECONDS
from service.errors import Conflict
from service.store.queue import LISTED_FOR, CancelQueue
from service.store.records import UserKeys
from service.store.revocations import REASON, Progress, RevocationStore
from service.store.sessions import SessionStore
from service.store.tenants import TenantStore

INTERVAL: Final = 1.0
"""Seconds between looks at what is to be revoked."""
SIDE_BY_SIDE: Final = 10
"""Users fenced at once."""
LOOKED_AT: Final = 100
"""Users of one revocation of whom is asked at once whether something is still queued."""
LOOKING: Final = 0.3
"""Seconds of each `INTERVAL` that one revocation's users may be looked at."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands between a tenant and its sessions. `blocked_since` is in Unix seconds (None: not blocked)."""

    blocked_since: float | None
    users: int
    """Who may have something alive, not fenced yet."""
    progress: Progress | None


class Revoke:
    """The use case, and what carries it on in the background.

    *remember_for* gives how long a tenant's logouts must be remembered, in seconds; *clock* is Unix seconds.
    """

    def __init__(
        self,
        tenants: TenantStore,
        revocations: RevocationStore,
        store: SessionStore,
        queue: CancelQueue,
        remember_for: Callable[[str], float],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenants = tenants
        self._revocations = revocations
        self._store = store
        self._queue = queue
        self._remember_for = remember_for
        self._clock = clock
        self._replica = secrets.token_urlsafe(9)
        self._cursors: dict[str, int] = {}

    async def begin(self, tenant: str, *, rate: float) -> Standing:
        """Block the tenant and begin to revoke it, at *rate* cancels a second; where that is under way, it goes on.

        Whoever came back since an `unblock` is revoked too.
        """
        await self._tenants.block(tenant)
        await self._revocations.begin(tenant, rate=rate)
        # And again: somebody's unblock that had looked before there was anything to see may have opened it since.
        await self._tenants.block(tenant)
        return await self.standing(tenant)

    async def standing(self, tenant: str) -> Standing:
        """Return how things stand."""
        return Standing(
            await self._tenants.since(tenant),
            await self._tenants.count(tenant),
            await self._revocations.progress(tenant),
        )

    async def blocked(self, tenants: Sequence[str]) -> list[float | None]:
        """Return since when (Unix seconds) each is blocked; None where it isn't."""
        return await self._tenants.blocked(tenants)

    async def unblock(self, tenant: str) -> bool:
        """Let new logins mint again; return whether the tenant was blocked.

        Raises `Conflict` while its users are being fenced: those who came back would be logged out once more.
        """
        await self._refuse_while_fencing(tenant)
        was_blocked = await self._tenants.unblock(tenant, remember=self._remember_for(tenant))
        try:
            await self._refuse_while_fencing(tenant)
        except Conflict:
            # Somebody's revocation began in between: it was told that the tenant is closed.
            await self._tenants.block(tenant)
            raise
        return was_blocked

    async def _refuse_while_fencing(self, tenant: str) -> None:
        progress = await self._revocations.progress(tenant)
        if progress and progress.state == "fencing":
            await self._revocations.resume(tenant)
            raise Conflict("fencing", detail="The revocation still goes through the users; try again in a moment")

    async def run(self) -> None:
        """Carry on whatever is under way, for ever. Redis being away is no reason to stop."""
        await for_ever(self.once, every=INTERVAL, failed="revocation_failed")

    async def once(self) -> None:
        """Do what is to be done now."""
        trouble: Exception | None = None
        for tenant in await self._revocations.under_way():
            try:
                await self._carry_on(tenant)
            except Exception as error:  # noqa: BLE001  (one tenant's trouble must not hold up another's revocation)
                trouble = trouble or error
        if trouble:
            raise trouble

    async def _carry_on(self, tenant: str) -> None:
        if not await self._revocations.take_turn(tenant, self._replica):
            return
        progress, fenced = await self._revocations.progress(tenant), 0
        if progress and progress.state == "fencing":
            await self._fence(tenant, progress)
            fenced = progress.round
        elif progress:
            await self._look(tenant)
        await self._revocations.advance(tenant, fenced=fenced)

    async def _fence(self, tenant: str, progress: Progress) -> None:
        """Fence every user and queue what is live: each user's cancels in their turn, by the rate."""
        counted = progress.sessions
        trouble: BaseException | None = None
        async for some in self._tenants.listed(tenant, most=SIDE_BY_SIDE):
            after = max(0.0, progress.started_at + counted / progress.rate - self._clock())
            after = min(after, MAX_SECONDS)  # by then they have ended by themselves
            users = dict.fromkeys(keys for each in some for keys in each.users)
            fenced = await asyncio.gather(*(self._fence_user(keys, after) for keys in users), return_exceptions=True)
            failed = set()
            for keys, each in zip(users, fenced, strict=True):
                if isinstance(each, BaseException):
                    # One's trouble, a primary of a Cluster that is away, is no other's: tried again next time.
                    trouble = trouble or each
                    failed.add(keys)
                else:
                    counted = max(counted, each)
            # Last: whatever was cut short before is done again.
            await self._tenants.forget([each for each in some if failed.isdisjoint(each.users)])
            await self._revocations.take_turn(tenant, self._replica)
        if trouble:
            raise trouble
        log.info("tenant_fenced", tenant=tenant, sessions=counted)

    async def _fence_user(self, keys: UserKeys, after: float) -> int:
        """Return how many sessions of the tenant are counted by now."""
        listed = await self._queue.schedule(keys, delay=LISTED_FOR + after)
        queued = await self._store.revoke(
            keys, login=None, remember=self._remember_for(keys.tenant), reason=REASON, leases=True
        )
        counted = await self._revocations.count(keys)
        if queued:
            await self._queue.hurry(keys, listed, delay=after)
        return counted

    async def _look(self, tenant: str) -> None:
        """Count what the sweepers have done."""
        ends = time.monotonic() + LOOKING
        while True:
            cursor, users = await self._revocations.users(tenant, self._cursors.get(tenant, 0), most=LOOKED_AT)
            self._cursors[tenant] = cursor
            await self._revocations.close(tenant, users)
            if not cursor:
                del self._cursors[tenant]
            if not cursor or time.monotonic() > ends:
                return
