"""HTTP to upstreams and issuers: HTTPX2's interface over aiohttp's connections, and bounded reading."""

from typing import Final

import aiohttp
import httpx2
from httpx_aiohttp.httpx2.transport import AiohttpTransport

MAX_CONNECTIONS: Final = 4096
"""At all hosts together. A mint holds one for as long as upstream takes."""
KEEPALIVE: Final = 4.0
"""Seconds: shorter than the 5 of uvicorn and Node, so that a create is seldom sent into a closing connection."""

TRANSPORT_ERRORS: Final = (httpx2.HTTPError, httpx2.InvalidURL, aiohttp.ClientError, ValueError)
"""What a request can raise: the adapter lets some of aiohttp's own errors through, and aiohttp its ValueErrors."""


class AnswerTooLarge(Exception):  # noqa: N818
    """The answer is over its bound; the rest of it was not read."""


def make_transport() -> AiohttpTransport:
    """Return a transport; its connections open inside the event loop that first uses it."""
    return AiohttpTransport(client=_session)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE),
        # What one tenant's upstream sets must not be sent with another's key.
        cookie_jar=aiohttp.DummyCookieJar(),
        # The environment's proxies would see keys sent to loopback, and a netrc's passwords would go to issuers.
        trust_env=False,
    )


async def read_bounded(response: httpx2.Response, limit: int) -> bytes:
    """Return the body of at most *limit* bytes; raise `AnswerTooLarge`."""
    body = bytearray()
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101  (an async transport gives an async stream)
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            raise AnswerTooLarge
    return bytes(body)
