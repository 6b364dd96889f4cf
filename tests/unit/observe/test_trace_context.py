"""W3C Trace Context: what is taken over from a caller, what is not, and what goes on upstream."""

import re
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observe import trace_context
from service.observe.trace_context import begin_trace, trace_headers

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")


@pytest.fixture(autouse=True)
def of_this_test_alone() -> Iterator[None]:
    """A test that is no task begins its trace for whatever comes after it."""
    before = trace_context._current.set(None)
    yield
    trace_context._current.reset(before)


BAD = {
    "empty": "",
    "blank": "  ",
    "no flags": f"00-{TRACE}-{SPAN}",
    "no flags, but their dash": f"00-{TRACE}-{SPAN}-",
    "one digit of flags": f"00-{TRACE}-{SPAN}-1",
    "three digits of flags": f"00-{TRACE}-{SPAN}-001",
    "flags no digits": f"00-{TRACE}-{SPAN}-0x",
    "more than version 00 has": f"{GOOD}-what",
    "more than version 00 has, empty": f"{GOOD}-",
    "joined with another": f"{GOOD},{GOOD}",
    "upper-case trace": f"00-{TRACE.upper()}-{SPAN}-01",
    "upper-case span": f"00-{TRACE}-{SPAN.upper()}-01",
    "upper-case flags": f"00-{TRACE}-{SPAN}-0A",
    "upper-case version": f"0A-{TRACE}-{SPAN}-01",
    "version ff": f"ff-{TRACE}-{SPAN}-01",
    "version of one digit": f"0-{TRACE}-{SPAN}-01",
    "version of three digits": f"000-{TRACE}-{SPAN}-01",
    "version no digits": f".0-{TRACE}-{SPAN}-01",
    "all-zero trace": f"00-{'0' * 32}-{SPAN}-01",
    "all-zero span": f"00-{TRACE}-{'0' * 16}-01",
    "short trace": f"00-{TRACE[1:]}-{SPAN}-01",
    "long trace": f"00-{TRACE}0-{SPAN}-01",
    "short span": f"00-{TRACE}-{SPAN[1:]}-01",
    "long span": f"00-{TRACE}-{SPAN}0-01",
    "trace no digits": f"00-{'g' * 32}-{SPAN}-01",
    "other digits": f"00-{TRACE[:-1]}\u00b2-{SPAN}-01",
    "underscores": GOOD.replace("-", "_"),
    "a space within": f"00-{TRACE} -{SPAN}-01",
    "a line feed at the end of the span": f"00-{TRACE}-{SPAN}\n-01",
    "of a later version, without its dash": f"01-{TRACE}-{SPAN}-01what",
}

TAKEN = {
    GOOD: "01",
    f"00-{TRACE}-{SPAN}-00": "00",
    f"00-{TRACE}-{SPAN}-03": "03",
    f"00-{TRACE}-{SPAN}-ff": "03",  # flags that nobody knows yet are not passed on
    f" \t{GOOD} ": "01",
    f"01-{TRACE}-{SPAN}-01": "01",
    f"cc-{TRACE}-{SPAN}-01": "01",
    f"fe-{TRACE}-{SPAN}-01-what-the-future-will-be-like": "01",
    f"01-{TRACE}-{SPAN}-01-": "01",
}

STATES = {
    ("a=1,b=2",): "a=1,b=2",
    ("a=1", "b=2"): "a=1,b=2",
    (" a=1 ,\tb=2 ",): "a=1,b=2",
    ("a=1,,b=2,",): "a=1,b=2",
    ("",): None,
    (" , ",): None,
    ("fw529a3039@dt=FfeDG,1a-_*/=!x~",): "fw529a3039@dt=FfeDG,1a-_*/=!x~",
    ("a=1 2",): "a=1 2",
    (f"{'k' * 256}={'v' * 255}",): f"{'k' * 256}={'v' * 255}",
    (f"{'k' * 256}={'v' * 256}",): None,  # 513 characters in all
    (f"{'k' * 257}=1",): None,
    (f"a={'v' * 257}",): None,
    ("A=1",): None,
    ("a",): None,
    ("a=",): None,
    ("=1",): None,
    ("a=1=2",): None,
    ("a=grün",): None,
    ("a=\x7f",): None,
    ("a=1,a=2",): None,
    ("a=1", "a=2"): None,
    ("a=1,B=2",): None,
    (",".join(f"k{number}=v" for number in range(32)),): ",".join(f"k{number}=v" for number in range(32)),
    (",".join(f"k{number}=v" for number in range(33)),): None,
}


def headers(parents: Iterable[str], states: Iterable[str] = ()) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"service"),
        *((b"traceparent", parent.encode("latin-1", "replace")) for parent in parents),
        *((b"tracestate", state.encode("latin-1", "replace")) for state in states),
    ]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_malformed_begins_a_trace_anew_and_its_state_is_left_behind(bad: str) -> None:
    trace = begin_trace(headers([bad], ["a=1"]))
    assert (trace.caller, trace.state, trace.flags) == (None, "", 0)
    assert trace.trace_id != TRACE
    assert PARENT.fullmatch(trace_headers()["traceparent"])


@pytest.mark.parametrize("parents", [[], [GOOD, GOOD], [GOOD, ""], [GOOD, GOOD.replace("4b", "5b")]])
def test_none_and_several_begin_a_trace_anew(parents: list[str]) -> None:
    trace = begin_trace(headers(parents, ["a=1"]))
    assert (trace.caller, trace.state) == (None, "")
    assert "tracestate" not in trace_headers()


@pytest.mark.parametrize(("parent", "flags"), TAKEN.items())
def test_what_is_well_formed_is_taken_over_in_our_version(parent: str, flags: str) -> None:
    trace = begin_trace(headers([parent]))
    assert (trace.trace_id, trace.caller) == (TRACE, SPAN)
    told = trace_headers()["traceparent"]
    assert PARENT.fullmatch(told)
    version, trace_id, span, told_flags = told.split("-")
    assert (version, trace_id, told_flags) == ("00", TRACE, flags)
    assert span != SPAN


@pytest.mark.parametrize(("states", "told"), STATES.items())
def test_the_state_goes_on_whole_or_not_at_all(states: tuple[str, ...], told: str | None) -> None:
    trace = begin_trace(headers([GOOD], states))
    assert trace.trace_id == TRACE
    assert trace_headers().get("tracestate") == told


def test_each_call_has_a_span_of_its_own() -> None:
    begin_trace(headers([GOOD]))
    spans = {trace_headers()["traceparent"].split("-")[2] for _ in range(100)}
    assert len(spans) == 100


def test_each_request_without_a_trace_begins_its_own() -> None:
    assert len({begin_trace([]).trace_id for _ in range(100)}) == 100


@given(st.lists(st.binary(max_size=80), max_size=3), st.lists(st.binary(max_size=600), max_size=3))
def test_whatever_comes_what_goes_on_is_well_formed(parents: list[bytes], states: list[bytes]) -> None:
    trace = begin_trace(
        [*((b"traceparent", parent) for parent in parents), *((b"tracestate", state) for state in states)]
    )
    told = trace_headers()
    assert PARENT.fullmatch(told["traceparent"])
    assert trace.trace_id in told["traceparent"]
    assert told.get("tracestate", "").isascii()


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_every_id_but_zero_is_taken_over(trace_id: str, span: str) -> None:
    trace = begin_trace(headers([f"00-{trace_id}-{span}-01"]))
    zero = not int(trace_id, 16) or not int(span, 16)
    assert (trace.trace_id == trace_id) is not zero


@given(st.lists(st.from_regex(r"[a-z][a-z0-9_*/@-]{0,20}=[!-+\--<>-~]{1,20}", fullmatch=True), max_size=40))
def test_a_well_formed_state_goes_on_as_it_came_up_to_its_limits(members: list[str]) -> None:
    begin_trace(headers([GOOD], members))
    keys = [member.partition("=")[0] for member in members]
    fits = len(members) <= 32 and len(",".join(members)) <= 512 and len(set(keys)) == len(keys)
    assert trace_headers().get("tracestate") == (",".join(members) if fits and members else None)
