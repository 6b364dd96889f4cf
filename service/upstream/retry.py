"""When a call may be repeated, and after how long. Pure: what upstream answered in, a decision out.

Upstream has no idempotency key, so a create is repeated only where nothing can have been created. The rules and
numbers are the SDKs' own otherwise: two retries, 0.5·2ⁿ s up to 8 s, `retry-after-ms` before `Retry-After`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

from service.errors import Refusal

MOST: Final = 2
"""Retries of one create or cancel."""
FIRST, LAST = 0.5, 8.0
"""Seconds before the first retry, doubled each time, and the longest."""
JITTER: Final = 0.25
"""The share that chance may take off, so that those who failed together don't return together."""
LEAST: Final = 0.25
"""Seconds that must be left for a retry: what is sent and then given up may leave a session behind."""
LONGEST_HINT: Final = 60.0
"""Seconds: a caller is not told to stay away for longer, whatever upstream says."""
STILL_LIVE: Final = frozenset({401, 403, 408, 409, 429})
"""Answers to a cancel that say nothing about the session; any other 4xx means that it is no longer live."""
UNDECIDED: Final = frozenset({408, 409})
"""4xx answers to a create after which a session may exist all the same."""
QUOTA: Final = "insufficient_quota"
"""The account has no credit left: a 429 that waiting doesn't mend."""
TOLD: Final = "told"
"""Repeated for no reason but that upstream says so: once."""

OK, REDIRECT, CLIENT_ERROR, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 200, 300, 400, 429, 500, 503
_SECONDS: Final = re.compile(r"[0-9]{1,400}(\.[0-9]{1,400})?")

Operation = Literal["create", "cancel"]


@dataclass(slots=True)
class Answer:
    """What upstream said: status, headers, and the body's JSON (None where there is none)."""

    status: int
    headers: Mapping[str, str]
    value: Any


@dataclass(slots=True)
class Failure:
    """No answer. Nothing was sent where it is `connect`, `pool` (no connection free) or `open` (held back)."""

    kind: Literal["connect", "pool", "open", "timeout", "lost", "invalid"]
    refusal: Refusal

    @property
    def sent(self) -> bool:
        """Whether upstream may have got the request."""
        return self.kind in ("timeout", "lost", "invalid")


Result = Answer | Failure


def perhaps_created(result: Result, *, now: float) -> bool:
    """Return whether a create that ended so, without success, may have made a session: an orphan."""
    if isinstance(result, Failure):
        return result.sent
    if result.status == UNAVAILABLE:
        return hint(result.headers, now=now) is None  # one that says when to come back has done nothing
    return result.status in UNDECIDED or result.status >= SERVER_ERROR


def is_failing(result: Result, *, now: float) -> bool:
    """Return whether upstream was away or in trouble: what a breaker counts. One that says when to come back is not."""
    if isinstance(result, Failure):
        return result.kind in ("connect", "timeout", "lost")
    return result.status >= SERVER_ERROR and not (
        result.status == UNAVAILABLE and hint(result.headers, now=now) is not None
    )


def retry_reason(operation: Operation, result: Result, *, repeatable: bool, now: float) -> str | None:
    """Return why the call may be repeated, in one of a few words for the metrics; None where it may not.

    *repeatable*: the tenant wants creates repeated even where a session may have been made. Cancels always are.
    """
    repeatable = repeatable or operation == "cancel"
    if isinstance(result, Failure):
        if result.kind in ("connect", "pool") or (repeatable and result.kind in ("timeout", "lost")):
            return result.kind
        return None
    status = result.status
    if final(operation, status) or (told := result.headers.get("x-should-retry")) == "false":
        return None
    harmless = operation == "cancel" or not perhaps_created(result, now=now)
    passing = status in UNDECIDED or status >= SERVER_ERROR
    if status == TOO_MANY:
        passing = not out_of_credit(result)
    if passing and (harmless or repeatable):
        return "5xx" if status >= SERVER_ERROR else str(status)
    return TOLD if told == "true" and harmless else None


def final(operation: Operation, status: int) -> bool:
    """Return whether the call did what it was to do: a session that is gone is what a cancel wanted."""
    gone = operation == "cancel" and CLIENT_ERROR <= status < SERVER_ERROR and status not in STILL_LIVE
    return gone or OK <= status < REDIRECT


def out_of_credit(answer: Answer) -> bool:
    """Return whether a 429 is one that waiting doesn't mend."""
    error = answer.value.get("error") if isinstance(answer.value, dict) else None
    return isinstance(error, dict) and QUOTA in (error.get("code"), error.get("type"))


def hint(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return in how many seconds upstream wants to be asked again; None where it doesn't say so in a way we know.

    `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date (RFC 9110 §10.2.3). *now* is in Unix seconds.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    told = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(told):
        return float(told)
    try:
        date = parsedate_to_datetime(told) if told else None
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now) if date else None
    except (ValueError, OverflowError):
        return None


def backoff(retry: int, chance: float) -> float:
    """Return how long to wait before retry number *retry* (from 0), in seconds; *chance* is from 0 to 1."""
    return min(LAST, FIRST * 2.0**retry) * (1 - JITTER * chance)
