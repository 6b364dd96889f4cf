"""Our own authority as a tenant's upstream, in process: same Redis, no hop."""

import time
from collections.abc import Callable
from typing import Final

from service.contract import CreateSession
from service.errors import UpstreamRefused, UpstreamUnavailable
from service.observe.metrics import Metrics
from service.session import Account, Minted, Session
from service.upstream.authority.sessions import Authority
from service.upstream.authority.wire import WireError
from service.upstream.wire import read_cancelled, read_minted

SERVER_ERROR: Final = 500


class AuthoritySessions:
    """See `SessionIssuer`. Each tenant is a project of its own."""

    def __init__(self, authority: Authority, metrics: Metrics, *, clock: Callable[[], float] = time.time) -> None:
        self._authority = authority
        self._metrics = metrics
        self._clock = clock

    async def create(self, account: Account, body: CreateSession) -> Minted:
        """See `SessionIssuer.create`."""
        try:
            answer = await self._authority.create(account.tenant, body)
        except WireError as error:
            self._count("create", error.status)
            if error.status >= SERVER_ERROR:
                # Redis may have done it and lost the acknowledgement.
                self._metrics.orphans.labels(self._metrics.tenant(account.tenant)).inc()
                raise UpstreamUnavailable(f"the authority answered {error.status} {error.code}") from error
            raise UpstreamRefused(
                f"the authority answered {error.status} {error.code}",
                upstream_status=error.status,
                upstream_code=error.code or "",
            ) from error
        self._count("create", 200)
        return read_minted(answer, body, now=self._clock())

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        """See `SessionIssuer.cancel`."""
        try:
            answer = await self._authority.cancel(account.tenant, session_id)
        except WireError as error:
            self._count("cancel", error.status)
            if error.status >= SERVER_ERROR:
                raise UpstreamUnavailable(f"the authority answered {error.status} {error.code}") from error
            return None
        self._count("cancel", 200)
        return read_cancelled(answer, session_id)

    def _count(self, operation: str, outcome: int) -> None:
        self._metrics.upstream_calls.labels(operation, str(outcome)).inc()
