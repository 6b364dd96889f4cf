"""Who may talk to the demo page's server: the page itself.

It hands out tokens to whoever asks, on a developer's machine. Any page that the developer visits may try to ask it too:
by a name of its own that leads to 127.0.0.1 (DNS rebinding), from another origin, or in a frame.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER_NAMES: Final = frozenset({"localhost", "[::1]"})
"""What people also type."""
PAGE: Final = "/"
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Lets through what comes from the page at *url*. *policy* gives its `Content-Security-Policy`."""

    def __init__(self, app: ASGIApp, url: str, policy: Callable[[], str]) -> None:
        self._app = app
        self._url = url
        self._host = urlsplit(url).netloc
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "content-security-policy": self._policy()})
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if hosts != [self._host]:
            name, _, port = "".join(hosts).rpartition(":")
            if scope["path"] == PAGE and name in OTHER_NAMES and port == self._host.rpartition(":")[2]:
                return RedirectResponse(self._url + PAGE)
            return PlainTextResponse(f"The demo page is at {self._url}{PAGE} and under no other name.\n", 421)
        sites, origins = set(headers.getlist("sec-fetch-site")), set(headers.getlist("origin"))
        # The page itself may be opened from anywhere: a link in a terminal, a bookmark. What it asks for may not.
        by_itself = scope["path"] == PAGE and scope["method"] in ("GET", "HEAD")
        if not by_itself and (sites - {"same-origin"} or origins - {self._url}):
            return PlainTextResponse("This is for the demo page alone.\n", 403)
        return None
