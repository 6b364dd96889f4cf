"""ChatKit sessions over HTTP: OpenAI's hosted endpoint, and whatever speaks its contract."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx2
import orjson
import structlog

from service.contract import CreateSession
from service.errors import Refusal, UpstreamInvalid, UpstreamRefused, UpstreamUnavailable
from service.observe.logs import note
from service.observe.metrics import Metrics
from service.session import Account, Minted, Session
from service.transport import TRANSPORT_ERRORS
from service.upstream import retry
from service.upstream.breaker import Breakers, Name
from service.upstream.call import MAX_CREATES, Address, Calls, Patience, address_of
from service.upstream.retry import Answer, Failure, Operation, Result
from service.upstream.wire import read_cancelled, read_minted

if TYPE_CHECKING:
    from service.observe.spans import Spans

MOST_PREFERRED: Final = 4096
"""Accounts whose first key was refused and of which another is tried first; those past it begin with the first."""
LOGGED: Final = 128
"""Characters of a workflow's id in a log line."""

log = structlog.get_logger()


class OpenAISessions:
    """Creates and cancels sessions upstream. *clock* gives Unix seconds, *monotonic* and *sleep* are for tests."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        metrics: Metrics,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        creates: int = MAX_CREATES,
        spans: "Spans | None" = None,
    ) -> None:
        self._calls = Calls(transport, metrics, patience, creates=creates, spans=spans)
        self._breakers = Breakers(monotonic)
        self._metrics = metrics
        self._patience = patience
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._preferred: dict[tuple[str, str], Name] = {}

    def held_back(self) -> int:
        """Return from how many upstreams creates are held back now."""
        return self._breakers.opened()

    async def create(self, account: Account, body: CreateSession) -> Minted:
        """See `SessionIssuer.create`. Repeated only where nothing can have been created, or the tenant wants it so."""
        started = self._clock()
        content = orjson.dumps(body)

        def call(address: Address, within: float) -> Awaitable[Result]:
            nonlocal started
            started = self._clock()  # of the call that made it: its end is counted from here where upstream says none
            return self._create(account, address, content, within)

        result, asked = await self._persist("create", account, call)
        if isinstance(result, Failure):
            if isinstance(result.refusal, UpstreamUnavailable):
                result.refusal.asked = asked
            raise result.refusal
        if not retry.final("create", result.status):
            raise self._refusal(result, body)
        try:
            return read_minted(result.value, body, now=started)
        except UpstreamInvalid as refusal:
            if refusal.session_id is None:
                self._metrics.orphans.labels(self._metrics.tenant(account.tenant)).inc()
            raise

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        """See `SessionIssuer.cancel`."""
        if session_id in ("", ".", ".."):
            raise ValueError("an id that would name another path")
        path = f"/chatkit/sessions/{quote(session_id, safe='')}/cancel"

        def call(address: Address, within: float) -> Awaitable[Result]:
            return self._calls.cancel(address, path, within)

        result, _ = await self._persist("cancel", account, call)
        if isinstance(result, Failure):
            raise result.refusal
        if httpx2.codes.is_success(result.status):
            return read_cancelled(result.value, session_id)
        if retry.final("cancel", result.status):
            return None
        raise self._refusal(result)

    async def _persist(
        self, operation: Operation, account: Account, call: Callable[[Address, float], Awaitable[Result]]
    ) -> tuple[Result, bool]:
        """Call until there is a result to keep, no retry or no time left; return it, and whether any call was sent."""
        ends = self._monotonic() + self._patience.deadline
        retries = tries = 0
        asked = False
        while True:
            result, sent = await self._with_each_key(operation, account, call, ends)
            tries += sent
            asked = asked or sent > 1 or isinstance(result, Answer) or result.sent
            note(upstream_tries=tries)
            if isinstance(result, Answer) and retry.final(operation, result.status):
                return result, True
            reason = retry.retry_reason(operation, result, repeatable=account.retry_creates, now=self._clock())
            if reason is None or retries == retry.MOST or (reason == retry.TOLD and retries):
                return result, asked
            wait = self._wait(result, retries)
            if wait + retry.LEAST > ends - self._monotonic():
                return result, asked
            await self._sleep(wait)
            if self._monotonic() >= ends:  # woken late
                return result, asked
            self._metrics.upstream_retries.labels(operation, reason).inc()
            retries += 1

    async def _with_each_key(
        self,
        operation: Operation,
        account: Account,
        call: Callable[[Address, float], Awaitable[Result]],
        ends: float,
    ) -> tuple[Result, int]:
        """Call with one key after the other while they are refused: 401 did nothing. Return also how many calls.

        A cancel is tried with the next on 404 too: the session may be of another key's project.
        """
        try:
            addresses = self._addresses(account)
        except TRANSPORT_ERRORS as error:
            return Failure("connect", UpstreamUnavailable(type(error).__name__)), 0
        result: Result = await call(addresses[0], ends - self._monotonic())
        calls = 0 if isinstance(result, Failure) and result.kind == "open" else 1
        for address in addresses[1:]:
            left = ends - self._monotonic()
            refused = is_unauthorized(result)
            unknown = operation == "cancel" and isinstance(result, Answer) and result.status == httpx2.codes.NOT_FOUND
            if not (refused or unknown) or left < retry.LEAST:
                break
            again = await call(address, left)
            calls += 1
            # A key that is no good tells nothing of the session that another did not know.
            result = result if unknown and is_unauthorized(again) else again
            if refused and isinstance(result, Answer) and not is_unauthorized(result):
                self._prefer(account, address)
        return result, calls

    def _addresses(self, account: Account) -> list[Address]:
        """Return the account's address with each of its keys, the one that worked last first."""
        keys = account.api_keys or (None,)
        addresses = [address_of(account.base_url, key, account.organization, account.project) for key in keys]
        if len(addresses) > 1:
            preferred = self._preferred.get((account.tenant, account.place))
            addresses.sort(key=lambda address: address.breaker != preferred)
        return addresses

    def _prefer(self, account: Account, address: Address) -> None:
        name = (account.tenant, account.place)
        self._preferred.pop(name, None)
        self._preferred[name] = address.breaker
        if len(self._preferred) > MOST_PREFERRED:
            del self._preferred[next(iter(self._preferred))]
        log.warning("upstream_key_refused", tenant=account.tenant, hint="another key of the tenant works")

    async def _create(self, account: Account, address: Address, content: bytes, within: float) -> Result:
        """Call once, unless the breaker holds creates back; count an orphan where one may have been left."""
        wait = self._breakers.held_back(address.breaker)
        if wait is not None:
            self._metrics.upstream_calls.labels("create", "open").inc()
            note(upstream_outcome="open")
            return Failure("open", UpstreamUnavailable("held back after failures in a row", retry_after=wait))
        probe = self._breakers.enter(address.breaker)
        result: Result | None = None
        try:
            result = await self._calls.create(address, content, within)
        finally:
            if result is None or (isinstance(result, Failure) and result.kind == "pool"):
                self._breakers.abandoned(probe)  # nothing was learnt of upstream
        if isinstance(result, Answer) and retry.final("create", result.status):
            self._breakers.succeeded(address.breaker)
            return result
        now = self._clock()
        if retry.is_failing(result, now=now):
            if self._breakers.failed(address.breaker, probe):
                self._metrics.breaker_opens.labels(self._metrics.tenant(account.tenant)).inc()
                log.warning("upstream_held_back", tenant=account.tenant, base_url=account.base_url)
        elif isinstance(result, Answer) or result.sent:
            self._breakers.succeeded(address.breaker)
        if retry.perhaps_created(result, now=now):
            self._metrics.orphans.labels(self._metrics.tenant(account.tenant)).inc()
        return result

    def _wait(self, result: Result, retries: int) -> float:
        told = retry.hint(result.headers, now=self._clock()) if isinstance(result, Answer) else None
        return told or retry.backoff(retries, random.random())  # noqa: S311  (spreads retries, guards nothing)

    def _refusal(self, answer: Answer, body: CreateSession | None = None) -> Refusal:
        """Return what an answer other than success means. Of upstream's own words only its error code is kept."""
        code = _error_code(answer.value)
        reason = f"upstream answered {answer.status} {code}".rstrip()
        if answer.status == httpx2.codes.NOT_FOUND and body:
            workflow = body["workflow"]["id"][:LOGGED]
            reason += f": nearly always, the API key belongs to another project than workflow {workflow}"
        elif answer.status == httpx2.codes.UNAUTHORIZED:
            reason += ": is the API key right, and of the project that the tenant file names?"
        limited = answer.status == httpx2.codes.TOO_MANY_REQUESTS and not retry.out_of_credit(answer)
        if limited or answer.status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            # Its 429 is the whole account's, not this caller's: the caller did nothing too often.
            wait = retry.hint(answer.headers, now=self._clock())
            return UpstreamUnavailable(reason, retry_after=None if wait is None else min(wait, retry.LONGEST_HINT))
        return UpstreamRefused(reason, upstream_status=answer.status, upstream_code=code)


def is_unauthorized(result: Result) -> bool:
    """Return whether upstream did not believe the key."""
    return isinstance(result, Answer) and result.status == httpx2.codes.UNAUTHORIZED


def _error_code(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code[:64] if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum() else ""
