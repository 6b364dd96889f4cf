"""One call upstream: sent once, bounded in time and size, and told apart by whether it may have had its effect.

Requests go straight to the transport: a client's redirects, cookies and auth hooks are all things that we don't
want between us and an API key.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import httpx2
import orjson
from pydantic import SecretStr

from service.errors import UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.observe.trace_context import trace_headers
from service.transport import MAX_CONNECTIONS, TRANSPORT_ERRORS, AnswerTooLarge, read_bounded, why
from service.upstream.breaker import Name
from service.upstream.retry import Answer, Failure, Operation, Result

if TYPE_CHECKING:
    from service.observe.spans import Spans

MAX_ANSWER: Final = 12 * 1024 * 1024
"""Bytes: a session that echoes one state variable of the largest allowed size."""
MAX_CREATES: Final = MAX_CONNECTIONS - 512
"""Creates under way at once in a process; the connections above it are left to cancels and issuers' keys."""
CONNECT_SHARE: Final = 0.75
"""Of a call's time, at most, for connecting: what runs out of time before it is sent is known not to be sent."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long upstream is waited for, in seconds; `deadline` is for all calls of a request and the waits between."""

    call: float = 10.0
    connect: float = 3.0
    read: float = 10.0
    pool: float = 1.0
    deadline: float = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an account's calls go with one of its keys, and what they carry."""

    base_url: str
    create_url: httpx2.URL
    headers: httpx2.Headers = field(repr=False)
    breaker: Name = field(repr=False)


@lru_cache(maxsize=16_384)
def address_of(base_url: str, key: SecretStr | None, organization: str | None, project: str | None) -> Address:
    """Return the address; raise `httpx2.InvalidURL` or `ValueError` where HTTP can't carry it."""
    secret = key.get_secret_value() if key else ""
    headers = {
        "authorization": f"Bearer {secret}",
        "openai-beta": "chatkit_beta=v1",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "chatkit-mint",
    }
    if organization:
        headers["openai-organization"] = organization
    if project:
        headers["openai-project"] = project
    digest = hashlib.blake2b(secret.encode(), digest_size=16).digest()
    url = httpx2.URL(f"{base_url}/chatkit/sessions")
    return Address(base_url, url, httpx2.Headers(headers), (base_url, digest))


class Calls:
    """Makes calls, one at a time each. *creates* bounds how many creates are under way at once."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        metrics: Metrics,
        patience: Patience,
        *,
        creates: int = MAX_CREATES,
        spans: "Spans | None" = None,
    ) -> None:
        self._spans = spans
        self._transport = transport
        self._metrics = metrics
        self._patience = patience
        self._slots = asyncio.Semaphore(creates)
        self._usual = self._timeouts(patience.call)

    async def create(self, address: Address, content: bytes, within: float) -> Result:
        """Post a create body; the result comes *within* so many seconds."""
        started = time.perf_counter()
        if self._slots.locked():
            try:
                async with asyncio.timeout(min(self._patience.pool, within / 2)):
                    await self._slots.acquire()
                within -= time.perf_counter() - started
            except TimeoutError:
                self.tell("create", "pool", started)
                return Failure("pool", UpstreamUnavailable("no connection was free in time"))
        else:
            await self._slots.acquire()
        try:
            return await self._send("create", address, address.create_url, content, within)
        finally:
            self._slots.release()

    async def cancel(self, address: Address, path: str, within: float) -> Result:
        """Post to *path* below the base URL."""
        return await self._send("cancel", address, address.base_url + path, b"", within)

    def tell(self, operation: Operation, outcome: str, started: float) -> None:
        """Count and note a call that was *started* then (`time.perf_counter`)."""
        took = time.perf_counter() - started
        self._metrics.counter(self._metrics.upstream_calls, operation, outcome).inc()
        self._metrics.histogram(self._metrics.upstream_seconds, operation).observe(took)
        note(upstream_ms=round(took * 1000, 1), upstream_outcome=outcome)

    async def _send(
        self, operation: Operation, address: Address, url: httpx2.URL | str, content: bytes, within: float
    ) -> Result:
        started, outcome = time.perf_counter(), "error"
        within = min(within, self._patience.call)
        timeouts = self._usual if within == self._patience.call else self._timeouts(within)
        span = None if self._spans is None else self._spans.call(operation)
        try:
            trace = trace_headers() if self._spans is None or span is None else self._spans.headers(span)
            request = _request(url, address.headers, content, timeouts, trace)
            async with asyncio.timeout(within):
                response = await self._transport.handle_async_request(request)
                try:
                    raw = await read_bounded(response, MAX_ANSWER)
                finally:
                    await response.aclose()
        except TimeoutError:
            outcome = "timeout"
            return Failure("timeout", UpstreamTimeout(f"no answer within {within:g} s"))
        except AnswerTooLarge:
            return Failure("invalid", UpstreamInvalid("an answer larger than any session"))
        except TRANSPORT_ERRORS as error:
            failure = _failure(error)
            if isinstance(_cause(error), TimeoutError):
                outcome = "timeout"
            return failure
        else:
            outcome = str(response.status_code)
        finally:
            if self._spans is not None and span is not None:
                self._spans.called(span, outcome)
            self.tell(operation, outcome, started)
        note(upstream_request_id=response.headers.get("x-request-id"))
        return Answer(response.status_code, response.headers, _json(raw))

    def _timeouts(self, within: float) -> dict[str, Any]:
        """Return them as the adapter takes them: its `pool` bounds connecting as a whole, name look-up and all."""
        connect = min(self._patience.connect, within * CONNECT_SHARE)
        # The whole call is bounded anyway: where that is sooner, a timer for each read would cost and never ring.
        read = self._patience.read if self._patience.read < within else None
        return {"timeout": {"connect": connect, "pool": connect, "read": read}}


def _request(
    url: httpx2.URL | str,
    headers: httpx2.Headers,
    content: bytes,
    extensions: dict[str, Any],
    trace: Mapping[str, str],
) -> httpx2.Request:
    """Return a request whose headers are as they are: to have them completed for each would cost as much again.

    The transport adds the host and the length.
    """
    request = httpx2.Request("POST", url, headers=headers, stream=httpx2.ByteStream(content), extensions=extensions)
    request.headers.encoding = "latin-1"  # else found out anew for each
    for name, value in trace.items():
        request.headers[name] = value
    request.read()
    return request


def _cause(error: Exception) -> BaseException:
    return error.__cause__ or error


def _failure(error: Exception) -> Failure:
    """Tell a connection that never was from one that was lost.

    The aiohttp transport reports both as a connect timeout; only aiohttp's own error, the cause, tells. It isn't
    kept: it holds the request's headers, and the key is in them.
    """
    cause = _cause(error)
    name = why(error) or type(cause).__name__
    if isinstance(
        cause,
        aiohttp.ClientConnectorError
        | aiohttp.ConnectionTimeoutError
        | aiohttp.InvalidURL
        | httpx2.ConnectError
        | httpx2.InvalidURL,
    ):
        return Failure("connect", UpstreamUnavailable(name))
    if isinstance(cause, TimeoutError):
        return Failure("timeout", UpstreamTimeout(name))
    return Failure("lost", UpstreamUnavailable(name))


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
