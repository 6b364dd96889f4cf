"""What may be repeated, why, and after how long: as the upstream contract says."""

from typing import Any, Literal

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import Refusal
from service.upstream.retry import Answer, Failure, backoff, hint, is_failing, perhaps_created, retry_reason

NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example."""


def answer(status: int, code: str | None = None, kind: str | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, httpx2.Headers(named), {"error": {"code": code, "type": kind}})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 7 "}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "-1", "retry_after": "7"}, 7.0),
        ({"retry_after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry_after": "Sunday, 06-Nov-94 08:49:47 GMT"}, 10.0),
        ({"retry_after": "Sun Nov  6 08:49:47 1994"}, 10.0),
        ({"retry_after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 0.0),
        ({"retry_after": "Sun, 06 Nov 1994 25:00:00 GMT"}, None),
        ({"retry_after": "Sun, 99 Nov 99999999999 08:00:00 GMT"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "-7"}, None),
        ({"retry_after": "7,5"}, None),
    ],
)
def test_every_form_of_hint_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert hint(answer(503, **headers).headers, now=NOW) == seconds


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_hint_breaks_anything(milliseconds: str, seconds: str) -> None:
    found = hint({"retry-after-ms": milliseconds, "retry-after": seconds}, now=NOW)
    assert found is None or found >= 0


def test_the_waits_grow_and_chance_takes_a_quarter_off_at_most() -> None:
    assert [backoff(retry, 0.0) for retry in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert [backoff(retry, 1.0) for retry in range(2)] == [0.375, 0.75]


HINT = {"retry_after": "1"}
NO, YES = {"x_should_retry": "false"}, {"x_should_retry": "true"}
QUOTA = "insufficient_quota"

# What upstream did; why a create is repeated, as a rule and where the tenant opted in; why a cancel is; is there
# perhaps an orphan; is it a failure for the breaker.
RULES: list[tuple[Answer, str | None, str | None, str | None, bool, bool]] = [
    (answer(200), None, None, None, False, False),
    (answer(200, **YES), None, None, None, False, False),
    (answer(302), None, None, None, False, False),
    (answer(400), None, None, None, False, False),
    (answer(400, **YES), "told", "told", None, False, False),
    (answer(401), None, None, None, False, False),
    (answer(403), None, None, None, False, False),
    (answer(403, **YES), "told", "told", "told", False, False),
    (answer(404), None, None, None, False, False),
    (answer(404, **HINT), None, None, None, False, False),
    (answer(408), None, "408", "408", True, False),
    (answer(408, **YES), None, "408", "408", True, False),
    (answer(409), None, "409", "409", True, False),
    (answer(409, **HINT), None, "409", "409", True, False),
    (answer(409, **NO), None, None, None, True, False),
    (answer(429), "429", "429", "429", False, False),
    (answer(429, **HINT), "429", "429", "429", False, False),
    (answer(429, **NO), None, None, None, False, False),
    (answer(429, QUOTA), None, None, None, False, False),
    (answer(429, None, QUOTA), None, None, None, False, False),
    (answer(429, "other", QUOTA), None, None, None, False, False),
    (answer(429, QUOTA, **YES), "told", "told", "told", False, False),
    (answer(500), None, "5xx", "5xx", True, True),
    (answer(500, **HINT), None, "5xx", "5xx", True, True),
    (answer(500, **YES), None, "5xx", "5xx", True, True),
    (answer(502), None, "5xx", "5xx", True, True),
    (answer(503), None, "5xx", "5xx", True, True),
    (answer(503, retry_after="soon"), None, "5xx", "5xx", True, True),
    (answer(503, **HINT), "5xx", "5xx", "5xx", False, False),
    (answer(503, retry_after_ms="20"), "5xx", "5xx", "5xx", False, False),
    (answer(503, **HINT, **NO), None, None, None, False, False),
    (answer(529), None, "5xx", "5xx", True, True),
    (answer(529, **NO), None, None, None, True, True),
]


def told(rule: tuple[Any, ...]) -> str:
    return f"{rule[0].status} {rule[0].value['error']} {dict(rule[0].headers)}"


@pytest.mark.parametrize(("result", "rule", "opted_in", "cancel", "orphan", "failing"), RULES, ids=map(told, RULES))
def test_an_answer_is_repeated_as_the_contract_says(
    result: Answer, rule: str | None, opted_in: str | None, cancel: str | None, orphan: bool, failing: bool
) -> None:
    assert retry_reason("create", result, repeatable=False, now=NOW) == rule
    assert retry_reason("create", result, repeatable=True, now=NOW) == opted_in
    assert retry_reason("cancel", result, repeatable=False, now=NOW) == cancel
    assert perhaps_created(result, now=NOW) is orphan
    assert is_failing(result, now=NOW) is failing


Kind = Literal["connect", "pool", "open", "timeout", "lost", "invalid"]


@pytest.mark.parametrize(
    ("kind", "rule", "opted_in", "orphan", "failing"),
    [
        ("connect", True, True, False, True),
        ("pool", True, True, False, False),
        ("open", False, False, False, False),
        ("timeout", False, True, True, True),
        ("lost", False, True, True, True),
        ("invalid", False, False, True, False),
    ],
)
def test_no_answer_is_repeated_where_nothing_was_sent(
    kind: Kind, rule: bool, opted_in: bool, orphan: bool, failing: bool
) -> None:
    failure = Failure(kind, Refusal())
    assert retry_reason("create", failure, repeatable=False, now=NOW) == (kind if rule else None)
    assert retry_reason("create", failure, repeatable=True, now=NOW) == (kind if opted_in else None)
    assert retry_reason("cancel", failure, repeatable=False, now=NOW) == (kind if opted_in else None)
    assert perhaps_created(failure, now=NOW) is orphan
    assert is_failing(failure, now=NOW) is failing
