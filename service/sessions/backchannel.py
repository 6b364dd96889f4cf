"""A provider says that logins are over: fence and queue, and answer as soon as both are durable."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.observe.logs import note
from service.principal import EndedLogin
from service.sessions.cancel import LISTED_FOR, Canceller
from service.store.logins import LoginStore
from service.store.queue import CancelQueue
from service.store.records import UserKeys
from service.store.sessions import SessionStore

SIDE_BY_SIDE: Final = 20
"""Users logged out at once by one call: an issuer may be many tenants'."""


@dataclass(frozen=True, slots=True)
class _End:
    """A user's login that is over (None: all of them)."""

    keys: UserKeys
    login: str | None
    nameless: bool
    """What carries no login ends too: it may have been this one."""


class BackChannelLogout:
    """The use case."""

    def __init__(self, store: SessionStore, logins: LoginStore, queue: CancelQueue, canceller: Canceller) -> None:
        self._store = store
        self._logins = logins
        self._queue = queue
        self._canceller = canceller

    async def __call__(
        self, ended: Sequence[EndedLogin], *, jti: str, usable_for: float, remember_for: Callable[[str], float]
    ) -> None:
        """End what the logout token *jti* says has ended; it can be used for *usable_for* more seconds.

        *remember_for* gives how long a tenant's logouts must be remembered, in seconds.

        Returns once nothing of it can mint any more and every live session is queued to be cancelled; what became of
        the cancels nobody waits for. A token that has had its effect has none. Raises `StoreUnavailable`.
        """
        issuer = ended[0].issuer
        if await self._logins.took_effect(issuer, jti):
            note(logout_token="had its effect already")  # noqa: S106  (no secret)
            return
        ends = await self._ends(ended, remember_for)
        for start in range(0, len(ends), SIDE_BY_SIDE):
            some = ends[start : start + SIDE_BY_SIDE]
            await asyncio.gather(*(self._end(each, remember_for(each.keys.tenant)) for each in some))
        note(logged_out_users=len(ends))
        # Last: a token whose effect was cut short must have it when the provider sends it again.
        await self._logins.note_effect(issuer, jti, remember=usable_for)

    async def _ends(self, ended: Sequence[EndedLogin], remember_for: Callable[[str], float]) -> list[_End]:
        # First the mark that whoever mints from now on sees, then those who have minted until now.
        remember = max(remember_for(each.tenant) for each in ended)
        ends = [
            _End(keys, login, nameless=False)
            for issuer, login in {(each.issuer, each.login) for each in ended if each.login}
            for keys in await self._logins.end(issuer, login, remember=remember)
        ]
        for each in ended:
            if each.subject is not None:
                keys = UserKeys.of(each.tenant, each.subject)
                ends.append(_End(keys, each.login, nameless=each.login is not None))
        return list(dict.fromkeys(ends))

    async def _end(self, end: _End, remember: float) -> None:
        await self._queue.schedule(end.keys, delay=LISTED_FOR)
        queued = await self._store.revoke(
            end.keys, login=end.login, nameless=end.nameless, remember=remember, reason="logout"
        )
        self._canceller.begin(end.keys, queued)
