"""W3C Trace Context, level 2: which trace a request belongs to, taken over from its caller and passed on upstream.

Malformed or missing, a trace begins anew. Nothing about a user is in it.
"""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from random import getrandbits
from typing import Final, NamedTuple

_PARENT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
SAMPLED: Final = 0b01
KNOWN_FLAGS: Final = 0b11
"""Sampled, and random trace id."""
MOST_STATE: Final = 512
"""Characters of `tracestate`, and 32 members: more is not passed on (§3.3.1.5)."""
MOST_MEMBERS: Final = 32


class TraceContext(NamedTuple):
    """The trace, the caller's span (None: there is none) and what vendors add to it."""

    trace_id: str
    caller: str | None = None
    flags: int = 0
    state: str = ""

    def headers(self) -> dict[str, str]:
        """Return what a call that belongs to the trace carries: with a span id of its own."""
        told = {"traceparent": f"00-{self.trace_id}-{getrandbits(64) or 1:016x}-{self.flags:02x}"}
        if self.state:
            told["tracestate"] = self.state
        return told


_current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def begin_trace(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """Take over the caller's trace, or begin one, for this task; *headers* are a request's, names in lower case."""
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    context = _read(parents[0], states) if len(parents) == 1 else None
    context = context or TraceContext(f"{getrandbits(128) or 1:032x}")
    take_over(context)
    return context


def take_over(context: TraceContext) -> None:
    """Let this task belong to the trace from now on."""
    _current.set(context)


def current_state() -> str:
    """Return what vendors add to the trace of this task."""
    context = _current.get()
    return context.state if context else ""


def trace_headers() -> dict[str, str]:
    """Return the headers of a call made now; outside a request it begins a trace of its own."""
    context = _current.get()
    return (context or TraceContext(f"{getrandbits(128) or 1:032x}")).headers()


def _read(parent: bytes, states: list[bytes]) -> TraceContext | None:
    match = _PARENT.fullmatch(parent.strip())
    if not match or (match[1] == b"00" and match[5]):
        return None
    state = _state(b",".join(states).decode("latin-1"))
    return TraceContext(match[2].decode(), match[3].decode(), int(match[4], 16) & KNOWN_FLAGS, state)


def _state(text: str) -> str:
    members = [member.strip(" \t") for member in text.split(",") if member.strip(" \t")]
    keys = [member.partition("=")[0] for member in members]
    proper = len(members) <= MOST_MEMBERS and len(set(keys)) == len(keys) and all(map(_MEMBER.fullmatch, members))
    told = ",".join(members)
    return told if proper and len(told) <= MOST_STATE else ""
