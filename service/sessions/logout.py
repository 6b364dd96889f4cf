"""Log out: fence and queue first, cancel then, and say how many are left."""

from dataclasses import dataclass

from service.errors import NotFound, UpstreamUnavailable
from service.observe.logs import note
from service.principal import Principal
from service.session import Session, Status
from service.sessions.cancel import Canceller
from service.store.queue import LISTED_FOR, CancelQueue
from service.store.records import UserKeys
from service.store.sessions import SessionStore


@dataclass(frozen=True, slots=True)
class LogoutReport:
    """How many sessions upstream confirmed as cancelled, and how many are still being tried."""

    cancelled: int
    pending: int


class Logout:
    """The use case. *wait* is how long a caller waits for upstream, in seconds."""

    def __init__(self, store: SessionStore, queue: CancelQueue, canceller: Canceller, *, wait: float) -> None:
        self._store = store
        self._queue = queue
        self._canceller = canceller
        self._wait = wait

    async def __call__(self, principal: Principal, *, everywhere: bool, remember: float) -> LogoutReport:
        """End the principal's login, or (*everywhere*, or where tokens carry no login) every login of the user.

        *remember* is how long that must be known so that no older token of the tenant outlives it, in seconds.
        """
        login = None if everywhere else principal.login
        # Nobody becomes this visitor again: a cookie renewed a moment ago by a clock ahead of Redis's ends too.
        issued_at = principal.expires_at if principal.visitor else principal.issued_at
        return await self.user(principal.tenant, principal.subject, login=login, issued_at=issued_at, remember=remember)

    async def user(
        self, tenant: str, subject: str, *, remember: float, login: str | None = None, issued_at: float = 0.0
    ) -> LogoutReport:
        """End one login of a user, or (None) all of them; *issued_at* is the asking token's `iat`, if there is one."""
        keys = UserKeys.of(tenant, subject)
        listed = await self._queue.schedule(keys, delay=LISTED_FOR)
        queued = await self._store.revoke(keys, login=login, issued_at=issued_at, remember=remember, reason="logout")
        report = await self._canceller.settle(keys, queued, wait=self._wait, listed=listed)
        note(cancelled=len(report.cancelled), pending=len(report.pending))
        return LogoutReport(len(report.cancelled), len(report.pending))

    async def one(self, principal: Principal, session_id: str) -> Session:
        """End one session of the principal's and return it.

        Raises `NotFound` for an unknown id and for somebody else's, and `UpstreamUnavailable` where upstream did
        not confirm: the cancel is then tried again until the session has expired.
        """
        keys = UserKeys.of(principal.tenant, principal.subject)
        listed = await self._queue.schedule(keys, delay=LISTED_FOR)
        queued = await self._store.retire(keys, session_id, reason="cancel")
        if queued is None:
            if listed:
                await self._queue.release(listed, delay=None)  # nothing was queued for it
            raise NotFound("not among the caller's live sessions")
        report = await self._canceller.settle(keys, [queued], wait=self._wait, listed=listed)
        if report.pending:
            raise UpstreamUnavailable("cancel not confirmed; it is being retried")
        note(session_id=session_id)
        live = queued.live
        told = report.sessions.get(session_id)
        return Session(
            id=live.id,
            user=live.user,
            expires_at=live.expires_at,
            status=Status.CANCELLED,
            workflow={**(told.workflow if told else {"version": None}), "id": live.workflow},
            rate_limits=told.rate_limits if told else {},
            chatkit_configuration=told.chatkit_configuration if told else {},
        )
