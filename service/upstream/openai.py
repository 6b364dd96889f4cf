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
from service.transport import TRANSPORT_ERRORS, AnswerTooLarge, read_bounded
from service.upstream.wire import read_cancelled, read_minted

MAX_ANSWER: Final = 12 * 1024 * 1024
"""Bytes: a session that echoes one state variable of the largest allowed size."""
STILL_LIVE: Final = frozenset({401, 403, 408, 409, 429})
"""Answers to a cancel that say nothing about the session; any other 4xx means that it is no longer live."""
UNDECIDED: Final = frozenset({408, 409})
"""4xx answers to a create after which a session may exist all the same."""


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
        except _Ambiguous as error:
            self._metrics.orphans.labels(account.tenant).inc()
            raise error.refusal from None  # its cause holds the request's headers, and the key is in them
        if _perhaps_created(status, headers):
            self._metrics.orphans.labels(account.tenant).inc()
        _raise_for(status, headers, answer)
        try:
            return read_minted(answer, body, now=started)
        except UpstreamInvalid as refusal:
            if refusal.session_id is None:
                self._metrics.orphans.labels(account.tenant).inc()
            raise

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        """See `SessionIssuer.cancel`."""
        if session_id in ("", ".", ".."):
            raise ValueError("an id that would name another path")
        path = f"/chatkit/sessions/{quote(session_id, safe='')}/cancel"
        try:
            status, headers, answer = await self._call("cancel", account, path, b"")
        except _Ambiguous as error:
            raise error.refusal from None
        if httpx2.codes.is_client_error(status) and status not in STILL_LIVE:
            return None
        _raise_for(status, headers, answer)
        return read_cancelled(answer, session_id)

    async def _call(
        self, operation: str, account: Account, path: str, content: bytes
    ) -> tuple[int, httpx2.Headers, Any]:
        """Return status, headers and the answer's JSON (None where there is none).

        Raises `UpstreamUnavailable` where nothing can have been sent, and `_Ambiguous` in every other case.
        """
        started, outcome = time.perf_counter(), "error"
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(_request(account, path, content, self._timeout))
                try:
                    raw = await read_bounded(response, MAX_ANSWER)
                finally:
                    await response.aclose()
            outcome = str(response.status_code)
        except TimeoutError as error:
            outcome = "timeout"
            raise _Ambiguous(UpstreamTimeout(f"no answer within {self._timeout:g} s")) from error
        except AnswerTooLarge as error:
            raise _Ambiguous(UpstreamInvalid("an answer larger than any session")) from error
        except TRANSPORT_ERRORS as error:
            if isinstance(_cause(error), TimeoutError):
                outcome = "timeout"
            raise _lost_or_never_sent(error) from error
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


def _cause(error: Exception) -> BaseException:
    return error.__cause__ or error


def _lost_or_never_sent(error: Exception) -> Exception:
    """Tell a connection that never was from one that was lost.

    The aiohttp transport reports both as a connect timeout; only aiohttp's own error, the cause, tells.
    """
    cause = _cause(error)
    if isinstance(cause, aiohttp.ClientConnectorError | httpx2.ConnectError | aiohttp.ConnectionTimeoutError):
        return UpstreamUnavailable(type(cause).__name__)
    if isinstance(cause, TimeoutError):
        return _Ambiguous(UpstreamTimeout(type(cause).__name__))
    return _Ambiguous(UpstreamUnavailable(type(cause).__name__))


def _request(account: Account, path: str, content: bytes, timeout: float) -> httpx2.Request:
    return httpx2.Request(
        "POST",
        account.base_url + path,
        headers=_headers(account),
        content=content,
        extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout)},
    )


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


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _perhaps_created(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a create that was answered so may have made a session: a 503 that says when to retry has not."""
    if status == httpx2.codes.SERVICE_UNAVAILABLE:
        return "retry-after" not in headers and "retry-after-ms" not in headers
    return status in UNDECIDED or status >= httpx2.codes.INTERNAL_SERVER_ERROR


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
    return code[:64] if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum() else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    seconds = headers.get("retry-after", "")
    return min(float(seconds), 60.0) if seconds.isdecimal() and seconds.isascii() else None
