"""The HTTP transport to upstreams and issuers: HTTPX2's interface over aiohttp's connections."""

from typing import Final

import aiohttp
from httpx_aiohttp.httpx2.transport import AiohttpTransport

MAX_CONNECTIONS: Final = 4096
"""At all hosts together. A mint holds one for as long as upstream takes."""
KEEPALIVE: Final = 15.0
"""Seconds: shorter than servers' own, so that a create is seldom sent into a closing connection."""


def make_transport() -> AiohttpTransport:
    """Return a transport; its connections open inside the event loop that first uses it."""
    return AiohttpTransport(client=_session)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE),
        # What one tenant's upstream sets must not be sent with another's key.
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
