"""HTTP to upstreams and issuers: HTTPX2's interface over aiohttp's connections, and bounded reading."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
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

NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
"""How OpenSSL names an answer that is no TLS."""


class AnswerTooLarge(Exception):  # noqa: N818
    """The answer is over its bound; the rest of it was not read."""


def make_transport() -> AiohttpTransport:
    """Return a transport; its connections open inside the event loop that first uses it."""
    # The context is the adapter's own: aiohttp has another. It would read all CA certificates, and never use them.
    return AiohttpTransport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client=_session)


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


def why(error: BaseException) -> str | None:
    """Return what stood in the way of a connection, in words of our own: a library's may quote a URL's password.

    None where nothing tells.
    """
    return next(filter(None, map(meaning, causes(error))), None)


def meaning(error: BaseException) -> str | None:
    """Return what one error means, whatever led to it; None where it doesn't tell."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its TLS certificate is not trusted here: {error.verify_message}"
        case ssl.SSLError():
            return "it speaks no TLS" if error.reason in NO_TLS else f"TLS failed: {error.reason}"
        case socket.gaierror():
            return "its name is not known here"
        case OSError(errno=int(number)) if number in errno.errorcode:
            return os.strerror(number).lower()
        case _:
            return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, the innermost first: that one knows."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    yield from reversed(found)
