"""Behind a proxy that has asked `/v1/authorize`: who is asking is in headers that the proxy has set.

Whoever reaches the app past the proxy can write these headers too: let the app listen where only the proxy comes.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import unquote

from chatkit_sessions.asgi import OURS, App, Headers, SessionMiddleware
from chatkit_sessions.session import NotActive, VerifiedSession
from chatkit_sessions.verifier import Verifier

NAMES: Final = (b"user", b"tenant", b"session", b"workflow", b"expires-at")
NOTHING: Final[Mapping[str, Any]] = {
    "automatic_thread_titling": {"enabled": True},
    "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
    "history": {"enabled": False, "recent_threads": None},
}
"""What is granted to somebody of whom only the name is known."""


def forwarded_session(headers: Headers, grants: Mapping[str, Any] = NOTHING) -> VerifiedSession:
    """Return the session that a proxy's headers name; raise `NotActive` unless each of them is there once.

    The headers don't say what the session may: *grants*, a `chatkit_configuration`, says it for all of them.
    """
    told = [(name.lower().removeprefix(OURS), value) for name, value in headers if name.lower().startswith(OURS)]
    given = [(name, unquote(value.decode("latin-1"))) for name, value in told if name in NAMES]
    values = dict(given)
    expires_at = values.get(b"expires-at", "")
    if len(given) != len(NAMES) or len(values) != len(NAMES) or not all(values.values()) or not expires_at.isdecimal():
        raise NotActive
    if time.time() >= int(expires_at):
        raise NotActive
    return VerifiedSession(
        id=values[b"session"],
        tenant=values[b"tenant"],
        user=values[b"user"],
        expires_at=int(expires_at),
        workflow={"id": values[b"workflow"]},
        max_requests_per_1_minute=0,
        chatkit_configuration=grants,
    )


class ForwardedMiddleware(SessionMiddleware):
    """Takes sessions from a proxy's headers, and ends what is streamed to them when they end.

    Only the *verifier* can tell that one has ended: the proxy asks before an answer, never during it.
    """

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        grants: Mapping[str, Any] = NOTHING,
        open_paths: Collection[str] = (),
        upload_paths: Collection[str] = (),
        tenants: Collection[str] | None = None,
    ) -> None:
        super().__init__(app, verifier, open_paths=open_paths, upload_paths=upload_paths, tenants=tenants)
        self._grants = grants

    async def _session(self, headers: Headers) -> VerifiedSession:
        return forwarded_session(headers, self._grants)
