"""A provider says that logins are over: fence and queue, and answer as soon as both are durable."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.observe.logs import note
from service.principal import EndedLogin
from service.sessions.cancel import Canceller
from service.store.logins import LoginStore
from service.store.queue import LISTED_FOR, CancelQueue
from service.store.records import KEEP, UserKeys
from service.store.sessions import SessionStore

SIDE_BY_SIDE: Final = 20
"""Tenants logged out of at once by one call: an issuer may be many tenants'."""


@dataclass(frozen=True, slots=True)
class _Told:
    """The logout token, apart from whom it ends: its name, when it was made (Unix seconds), how long it works (s)."""

    jti: str
    issued_at: float
    usable_for: float


class BackChannelLogout:
    """The use case."""

    def __init__(self, store: SessionStore, logins: LoginStore, queue: CancelQueue, canceller: Canceller) -> None:
        self._store = store
        self._logins = logins
        self._queue = queue
        self._canceller = canceller

    async def __call__(
        self,
        ended: Sequence[EndedLogin],
        *,
        jti: str,
        issued_at: float,
        usable_for: float,
        remember_for: Callable[[str], float],
    ) -> None:
        """End what the logout token *jti*, made at *issued_at* (Unix seconds), says has ended.

        It can be used for *usable_for* more seconds. *remember_for* gives how long a tenant's logouts must be
        remembered, in seconds.

        Returns once nothing of it can mint any more and every live session is queued to be cancelled; what became of
        the cancels nobody waits for. A token that has had its effect has none. Raises `StoreUnavailable`.
        """
        told = _Told(jti, issued_at, usable_for)
        users: list[int | None] = []
        for start in range(0, len(ended), SIDE_BY_SIDE):
            some = ended[start : start + SIDE_BY_SIDE]
            users += await asyncio.gather(*(self._end(each, told, remember_for(each.tenant)) for each in some))
        if users and all(count is None for count in users):
            note(logout_token="had its effect already")  # noqa: S106  (no secret)
        note(logged_out_users=sum(count or 0 for count in users))

    async def _end(self, ended: EndedLogin, told: _Told, remember: float) -> int | None:
        """Log out of one tenant; return how many users that were, None where the token has had its effect there."""
        if await self._logins.took_effect(ended.tenant, ended.issuer, told.jti):
            return None
        named = None if ended.subject is None else UserKeys.of(ended.tenant, ended.subject)
        users = [] if named is None else [named]
        if ended.login is not None:
            # First the mark that whoever mints from now on sees, then those who have minted until now.
            minted = await self._logins.end(ended.tenant, ended.issuer, ended.login, remember=remember)
            users += [keys for keys in minted if keys != named]
        for keys in users:
            listed = await self._queue.schedule(keys, delay=LISTED_FOR)
            queued = await self._store.revoke(
                keys,
                login=ended.login,
                # The issuer's clock may be ahead of ours: its logout is no earlier than the tokens that it ends.
                issued_at=told.issued_at,
                # What carries no login ends too: it may have been this one.
                nameless=keys == named and ended.login is not None,
                remember=remember,
                reason="logout",
            )
            self._canceller.begin(keys, queued, listed)
        # Last: a token whose effect was cut short must have it when the provider sends it again.
        await self._logins.note_effect(ended.tenant, ended.issuer, told.jti, remember=told.usable_for + KEEP)
        return len(users)
