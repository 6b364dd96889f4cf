"""Fetch a small JSON document from an issuer: bounded in time and size, redirects not followed."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import orjson

from service.transport import TRANSPORT_ERRORS, AnswerTooLarge, read_bounded, why

MAX_BYTES: Final = 512 * 1024
"""A set of 100 RSA-4096 keys with certificates is below a tenth of it."""
TIMEOUT: Final = 5.0
"""Seconds for the whole exchange, so that dripping a byte a second doesn't hold it open."""

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class FetchError(Exception):
    """The document can't be had; the text says why and names no value from the answer."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON value, and how long its sender says that it keeps (seconds; None where it says nothing)."""

    value: Any
    max_age: int | None


async def fetch_json(transport: httpx2.AsyncBaseTransport, url: str) -> Document:
    """Return the document at *url*; raise `FetchError`."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise FetchError("not a URL") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.host in LOOPBACK):
        raise FetchError("not https")
    request = httpx2.Request(
        "GET",
        parsed,
        headers={"accept": "application/json", "accept-encoding": "identity"},
        extensions={"timeout": {"connect": TIMEOUT, "read": TIMEOUT, "write": TIMEOUT, "pool": TIMEOUT}},
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            response = await transport.handle_async_request(request)
            try:
                body = await read_bounded(response, MAX_BYTES)
            finally:
                await response.aclose()
    except TimeoutError:
        raise FetchError(f"no answer within {TIMEOUT:g} s") from None
    except AnswerTooLarge:
        raise FetchError(f"over {MAX_BYTES // 1024} KiB") from None
    except TRANSPORT_ERRORS as error:
        raise FetchError(why(error) or type(error.__cause__ or error).__name__) from None
    if response.status_code != httpx2.codes.OK:
        raise FetchError(f"status {response.status_code}")
    try:
        return Document(orjson.loads(body), _max_age(response.headers.get("cache-control", "")))
    except orjson.JSONDecodeError:
        raise FetchError("not JSON") from None


def _max_age(cache_control: str) -> int | None:
    found = re.search(r"(?:^|[\s,])max-age=(\d{1,9})", cache_control)
    return int(found[1]) if found else None
