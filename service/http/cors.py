"""CORS (the Fetch standard): which pages' scripts may call, by the exact origins that tenants list.

A preflight carries no credential, so it is answered for the origins of all tenants together; the answer to the call
itself only for those of the tenant that it turned out to be. Errors carry the headers too: a page must be able to read
why it was refused. An origin that nobody listed gets none of them.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.observe.logs import note
from service.policy.tenant import Pages, Policies

METHODS: Final = b"GET, POST"
REQUEST_HEADERS: Final = b"authorization, content-type, chatkit-tenant, traceparent, tracestate"
EXPOSED: Final = b"Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate, X-Request-Id, Date"
"""`Date` for the browser module, which counts by the service's clock."""
MAX_AGE: Final = b"600"
"""Seconds that a browser remembers a preflight; Chromium takes no more than two hours."""

NOBODYS: Final = "a page of no tenant's origins: its browser won't call; `cors.origins` of the tenant's file lists them"
ANOTHERS: Final = "a page that this tenant doesn't list in `cors.origins`: its browser keeps the answer from it"

OPEN: Final = "chatkit_mint.open"
"""In the scope where any page may read the answer, which then says so itself: two such headers are as good as none."""

Headers = list[tuple[bytes, bytes]]


class Cors:
    """What pages may. *policies* gives those in force."""

    def __init__(self, policies: Callable[[], Policies]) -> None:
        self._policies = policies

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the app with preflights answered before it."""

        def answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            preflight = scope["type"] == "http" and scope["method"] == "OPTIONS" and _is_preflight(scope)
            return self._preflight(scope, send) if preflight else app(scope, receive, send)

        return answer

    async def _preflight(self, scope: Scope, send: Send) -> None:
        origin = _origin(scope)
        if origin is None or not self._allowed(origin, None):
            # No header, no call: that is all that a browser goes by. The log says whose page it was.
            _note(origin or b"", NOBODYS)
            await send({"type": "http.response.start", "status": 204, "headers": [*_VARIES]})
        else:
            await send({"type": "http.response.start", "status": 204, "headers": [*_PREFLIGHT, *_VARIES]})
        await send({"type": "http.response.body", "body": b""})

    def headers(self, scope: Scope, tenant: str | None) -> Headers:
        """Return what an answer carries for the page that asked; *tenant* is whose it is, None where nobody knows."""
        origin = _origin(scope)
        if origin is None or scope.get(OPEN):
            return []
        headers = [] if scope["method"] == "OPTIONS" else [(b"vary", b"Origin")]
        if pages := self._allowed(origin, tenant):
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)]
            if origin.decode("latin-1") in pages.with_cookies:
                headers.append((b"access-control-allow-credentials", b"true"))
        elif tenant is not None and not _is_own(scope, origin):
            _note(origin, ANOTHERS)
        return headers

    def _allowed(self, origin: bytes, tenant: str | None) -> Pages | None:
        policies = self._policies()
        known = policies.tenants.get(tenant) if tenant is not None else None
        pages = known.pages if known else policies.pages
        return pages if origin.decode("latin-1") in pages.origins else None


def _origin(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"origin":
            return bytes(value)
    return None


def _is_own(scope: Scope, origin: bytes) -> bool:
    """Return whether the page came from where it calls: then CORS is no matter."""
    host = origin.partition(b"://")[2]
    return any(name == b"host" and value == host for name, value in scope["headers"])


def _note(origin: bytes, why: str) -> None:
    note(origin=origin.decode("latin-1")[:128], cors=why)


def _is_preflight(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


_VARIES: Final[Headers] = [
    (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
]
_PREFLIGHT: Final[Headers] = [
    (b"access-control-allow-methods", METHODS),
    (b"access-control-allow-headers", REQUEST_HEADERS),
    (b"access-control-max-age", MAX_AGE),
]
