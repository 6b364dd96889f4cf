"""The table of an upstream's faults, each with what must come of it."""

import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from faults.stack import KEY
from support.scripted import Play, answer, says

SECRET = "ek_the_secret"
FULL: dict[str, Any] = {
    "id": "cksess_1",
    "object": "chatkit.session",
    "client_secret": SECRET,
    "expires_at": int(time.time()) + 600,
    "user": "acme:alice",
    "status": "active",
    "workflow": {"version": None, "state_variables": None, "tracing": {"enabled": True}},
    "rate_limits": {"max_requests_per_1_minute": 10},
}


def without(*names: str, **instead: Any) -> bytes:
    """A good answer but for this."""
    return answer(200, {**{name: value for name, value in FULL.items() if name not in names}, **instead})


GOOD = Play(without())
QUOTA = {"error": {"message": f"No credit left for {KEY}", "type": "insufficient_quota", "code": "insufficient_quota"}}
REFUSED, INVALID = (502, "upstream_refused"), (502, "upstream_invalid")
UNAVAILABLE, TIMEOUT, MINTED = (503, "upstream_unavailable"), (504, "upstream_timeout"), (200, None)
CANCELLED = {"cancel 200": 1}


@dataclass(frozen=True)
class Fault:
    """What upstream does to the requests in turn, and what must come of it. Counts are by outcome and by reason."""

    name: str
    plays: tuple[Play, ...]
    told: tuple[int, str | None]
    calls: dict[str, int]
    requests: int = 1
    orphans: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    wait: bool = False
    """Whether the caller is told when to come back."""
    opted_in: bool = False
    scheme: str = "http"


def made(*outcomes: str) -> dict[str, int]:
    return {f"create {outcome}": number for outcome, number in Counter(outcomes).items()}


def again(**reasons: int) -> dict[str, int]:
    return {f"create {reason.strip('_')}": number for reason, number in reasons.items()}


def once(name: str, play: Play, told: tuple[int, str | None], outcome: str, *, orphan: bool, **more: Any) -> Fault:
    """A fault after which upstream is left alone, although it would be well again."""
    return Fault(name, (play, GOOD), told, made(outcome), orphans=int(orphan), wait=told == UNAVAILABLE, **more)


def date(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
NEVER_SENT = Fault("refused", (), UNAVAILABLE, made(*["error"] * 3), 0, retries=again(connect=2), wait=True)
FAULTS = [
    NEVER_SENT,
    # --- lost on the way: a session may have been made, so it is not sent again ---
    once("reset before reading", Play(then="reset", read=False), UNAVAILABLE, "error", orphan=True, requests=0),
    once("reset after reading", Play(then="reset"), UNAVAILABLE, "error", orphan=True),
    once("closed after reading", Play(then="close"), UNAVAILABLE, "error", orphan=True),
    once("truncated headers", Play(b"HTTP/1.1 200 OK\r\ncontent-", "close"), UNAVAILABLE, "error", orphan=True),
    once("truncated body", Play(without()[:-20], "close"), UNAVAILABLE, "error", orphan=True),
    once("no answer", Play(then="hang"), TIMEOUT, "timeout", orphan=True),
    once("slow headers", Play(b"HTTP/1.1 200 OK\r\n", "hang"), TIMEOUT, "timeout", orphan=True),
    once("slow body", Play(without()[:-1], "hang"), TIMEOUT, "timeout", orphan=True),
    Fault(
        "drip",
        (Play(HEAD), Play(b" ", "hang", read=False, times=60, pause=0.05), GOOD),
        TIMEOUT,
        made("timeout"),
        orphans=1,
    ),
    Fault(
        "slow, but in time", (Play(without()[:-9], pause=0.1), Play(without()[-9:], read=False)), MINTED, made("200")
    ),
    # --- refused: nothing was made, and asking again changes nothing ---
    *(once(str(status), says(status), REFUSED, str(status), orphan=False) for status in (400, 401, 403, 404, 422)),
    *(once(str(status), says(status, location="/v1/x"), REFUSED, str(status), orphan=False) for status in (301, 307)),
    once("429 without credit", says(429, QUOTA), REFUSED, "429", orphan=False),
    # --- undecided ---
    *(once(str(status), says(status), REFUSED, str(status), orphan=True) for status in (408, 409)),
    # --- failing ---
    *(
        once(str(status), says(status, b"<html>Bad</html>"), UNAVAILABLE, str(status), orphan=True)
        for status in (500, 502, 503, 504, 529)
    ),
    once("500 with a hint", says(500, retry_after_ms="20"), UNAVAILABLE, "500", orphan=True),
    # --- busy: nothing was made, so it is sent again ---
    *(
        Fault(
            f"{status} {name}",
            (says(status, **headers), GOOD),
            MINTED,
            made(str(status), "200"),
            2,
            retries=again(_429=1) if status == 429 else again(_5xx=1),
        )
        for status, name, headers in (
            (429, "without a hint", {}),
            (429, "for milliseconds", {"retry_after_ms": "20"}),
            (429, "for a part of a second", {"retry_after": "0.02"}),
            (429, "until a date in the past", {"retry_after": date(-30)}),
            (429, "until soon", {"retry_after": "soon"}),
            (429, "for milliseconds, or an hour", {"retry_after_ms": "20", "retry_after": "3600"}),
            (503, "for milliseconds", {"retry_after_ms": "20"}),
            (503, "until a date in the past", {"retry_after": date(-30)}),
        )
    ),
    Fault("429 for ever", (says(429),) * 5, UNAVAILABLE, made(*["429"] * 3), 3, retries=again(_429=2), wait=True),
    once("429 for an hour", says(429, retry_after="3600"), UNAVAILABLE, "429", orphan=False),
    once("429 until a date", says(429, retry_after=date(3600)), UNAVAILABLE, "429", orphan=False),
    once("503 for an hour", says(503, retry_after=date(3600)), UNAVAILABLE, "503", orphan=False),
    once("429 x-should-retry: false", says(429, x_should_retry="false"), UNAVAILABLE, "429", orphan=False),
    once("500 x-should-retry: true", says(500, x_should_retry="true"), UNAVAILABLE, "500", orphan=True),
    Fault(
        "400 x-should-retry: true",
        (says(400, x_should_retry="true"), GOOD),
        MINTED,
        made("400", "200"),
        2,
        retries=again(told=1),
    ),
    # --- the tenant opted in: sent again, and each that may have left a session counted ---
    Fault(
        "lost, retry_creates",
        (Play(then="close"), says(500), GOOD),
        MINTED,
        made("error", "500", "200"),
        3,
        orphans=2,
        retries=again(lost=1, _5xx=1),
        opted_in=True,
    ),
    Fault(
        "slow, retry_creates",
        (Play(then="hang"), says(409), says(408)),
        REFUSED,
        made("timeout", "409", "408"),
        3,
        orphans=3,
        retries=again(timeout=1, _409=1),
        opted_in=True,
    ),
    # --- an answer, but no session ---
    once("empty body", says(200), INVALID, "200", orphan=True),
    once("HTML", says(200, b"<html>Welcome</html>"), INVALID, "200", orphan=True),
    once("truncated JSON", says(200, b'{"id": "cksess_1", "client_sec'), INVALID, "200", orphan=True),
    once("invalid JSON", says(200, b"{'id': 1}"), INVALID, "200", orphan=True),
    once("no object", says(200, [FULL]), INVALID, "200", orphan=True),
    once("10 MB of nothing", says(200, b" " * 10_000_000), INVALID, "200", orphan=True),
    once("13 MB", says(200, b" " * 13_000_000), INVALID, "error", orphan=True),
    once("no id", Play(without("id")), INVALID, "200", orphan=True),
    once("id of a wrong type", Play(without(id=7)), INVALID, "200", orphan=True),
    # --- a session that can't be used, but cancelled ---
    *(
        Fault(name, (Play(raw), says(200)), INVALID, {**made("200"), **CANCELLED}, 2)
        for name, raw in (
            ("no client_secret", without("client_secret")),
            ("client_secret of a wrong type", without(client_secret=["ek"])),
        )
    ),
    # --- a session all the same ---
    *(
        Fault(name, (Play(raw),), MINTED, made("200"))
        for name, raw in (
            ("10 MB session", without(extra="x" * 10_000_000)),
            ("no expires_at", without("expires_at")),
            ("expires_at of a wrong type", without(expires_at="soon")),
            ("expires_at long past", without(expires_at=1)),
            ("no workflow", without("workflow")),
            ("wrong types", without(workflow=[], rate_limits="many", user=7, status=None, chatkit_configuration=3)),
            ("unknown fields", without(scope={"user": "x"}, max_requests_per_session=5, ttl_seconds=900)),
        )
    ),
    Fault("barely anything", (says(201, {"id": "cksess_1", "client_secret": SECRET}),), MINTED, made("201")),
    # --- TLS ---
    Fault(
        "wrong certificate",
        (GOOD,),
        UNAVAILABLE,
        made(*["error"] * 3),
        0,
        retries=again(connect=2),
        wait=True,
        scheme="https",
    ),
]
