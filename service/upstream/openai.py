"""ChatKit sessions over HTTP: OpenAI's hosted endpoint, and whatever speaks its contract.

Requests go straight to the transport: a client's redirects, cookies and auth hooks are all things that we don't
want between us and an API key.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import httpx2
import orjson

from service.contract import CreateSession
from service.errors import Refusal, UpstreamInvalid, UpstreamRefused, UpstreamTimeout, UpstreamUnavailable
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.session import Account, Minted, Session
from service.upstream.wire import read_cancelled, read_minted

MAX_ANSWER: Final = 12 * 1024 * 1024
"""Bytes: a session that echoes one state variable of the largest allowed size."""
STILL_LIVE: Final = frozenset({401, 403, 408, 409, 429})
"""Answers to a cancel that say nothing about the session; any other 4xx means that it is no longer live."""


class OpenAISessions:
    """Creates and cancels sessions upstream. *timeout* bounds each call as a whole, in seconds."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        metrics: Metrics,
        *,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._metrics = metrics
        self._timeout = timeout
        self._clock = clock

    async def create(self, account: Account, body: CreateSession) -> Minted:
        """See `SessionIssuer.create`. Never repeated: upstream has no idempotency key."""
        started = self._clock()
        try:
            status, headers, answer = await self._call("create", account, "/chatkit/sessions", orjson.dumps(body))
            if status >= httpx2.codes.INTERNAL_SERVER_ERROR and status != httpx2.codes.SERVICE_UNAVAILABLE:
                # It failed somewhere, perhaps after the session was made.
                self._metrics.orphans.labels(account.tenant).inc()
            _raise_for(status, headers, answer)
            try:
                return read_minted(answer, body, now=started, request_id=headers.get("x-request-id"))
            except UpstreamInvalid:
                self._metrics.orphans.labels(account.tenant).inc()
                raise
        except _Ambiguous as error:
            self._metrics.orphans.labels(account.tenant).inc()
            raise error.refusal from error.__cause__

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        """See `SessionIssuer.cancel`."""
        path = f"/chatkit/sessions/{quote(session_id, safe='')}/cancel"
        try:
            status, headers, answer = await self._call("cancel", account, path, b"")
        except _Ambiguous as error:
            raise error.refusal from error.__cause__
        if httpx2.codes.is_client_error(status) and status not in STILL_LIVE:
            return None
        _raise_for(status, headers, answer)
        return read_cancelled(answer, session_id)

    async def aclose(self) -> None:
        """Close the transport's connections."""
        await self._transport.aclose()

    async def _call(
        self, operation: str, account: Account, path: str, content: bytes
    ) -> tuple[int, httpx2.Headers, Any]:
        """Return status, headers and the answer's JSON (None where there is none)."""
        request = httpx2.Request(
            "POST",
            account.base_url + path,
            headers=_headers(account),
            content=content,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)},
        )
        started, outcome = time.perf_counter(), "error"
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(request)
                try:
                    raw = await _read(response)
                finally:
                    await response.aclose()
            outcome = str(response.status_code)
        except (TimeoutError, httpx2.TimeoutException) as error:
            if isinstance(error.__cause__, aiohttp.ClientError) and not isinstance(
                error.__cause__, aiohttp.ServerTimeoutError
            ):
                raise _connection_refusal(error) from error
            outcome = "timeout"
            raise _Ambiguous(UpstreamTimeout(f"no answer within {self._timeout:g} s")) from error
        except (httpx2.HTTPError, aiohttp.ClientError) as error:  # the transport lets some of aiohttp's through
            raise _connection_refusal(error) from error
        finally:
            took = time.perf_counter() - started
            self._metrics.upstream_calls.labels(operation, outcome).inc()
            self._metrics.upstream_seconds.labels(operation).observe(took)
            note(upstream_ms=round(took * 1000, 1), upstream_outcome=outcome)
        note(upstream_request_id=response.headers.get("x-request-id"))
        return response.status_code, response.headers, _json(raw)


class _Ambiguous(Exception):  # noqa: N818
    """The call may have had its effect: the request was sent and its answer never came."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _connection_refusal(error: Exception) -> Exception:
    """Tell a connection that never was from one that was lost.

    The aiohttp transport reports both as a connect timeout; only aiohttp's own error, the cause, tells.
    """
    cause = error.__cause__ or error
    refusal = UpstreamUnavailable(type(cause).__name__)
    never = isinstance(cause, aiohttp.ClientConnectorError | httpx2.ConnectError)
    return refusal if never else _Ambiguous(refusal)


def _headers(account: Account) -> dict[str, str]:
    headers = {
        "authorization": f"Bearer {account.api_key.get_secret_value() if account.api_key else ''}",
        "openai-beta": "chatkit_beta=v1",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "chatkit-mint",
    }
    if account.organization:
        headers["openai-organization"] = account.organization
    if account.project:
        headers["openai-project"] = account.project
    return headers


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101  (an async transport gives an async stream)
    async for chunk in stream:
        body += chunk
        if len(body) > MAX_ANSWER:
            raise _Ambiguous(UpstreamInvalid("an answer larger than any session"))
    return bytes(body)


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _raise_for(status: int, headers: Mapping[str, str], answer: Any) -> None:
    """Raise unless *status* is a success. Of upstream's own words only its error code is kept, for the log."""
    if httpx2.codes.is_success(status):
        return
    reason = f"upstream answered {status} {_error_code(answer)}".rstrip()
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        # Its 429 is the whole account's, not this caller's: the caller did nothing too often.
        raise UpstreamUnavailable(reason, retry_after=_retry_after(headers))
    raise UpstreamRefused(reason)


def _error_code(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code[:64] if isinstance(code, str) and code.replace("_", "").isalnum() else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    seconds = headers.get("retry-after", "")
    return min(float(seconds), 60.0) if seconds.isdecimal() else None
