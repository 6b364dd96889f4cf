"""Structured logs: one canonical line a request, and nothing secret in any line.

Handlers don't log; they `note()` facts, which the request's one line carries at its end.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from traceback import extract_tb
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from service.observe.sink import Sink, TextSink
from service.observe.timestamps import to_micros

HINTS: Final = {
    "Invalid HTTP request received.": "https to this port? It speaks http; TLS ends at the proxy in front of it",
}
"""By the text of a library's own log line."""
_facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)


@cache
def output() -> Sink:
    """Return standard output, which the log has, and the audit stream where it has no file of its own."""
    return Sink(1)


def configure_logs(level: str, form: str) -> None:
    """Send every log line, the libraries' own included, to standard output as *form* (`json` or `console`)."""
    text = TextSink(output())
    as_json = form == "json"
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_complete, _to_bytes if as_json else last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines if as_json else structlog.WriteLoggerFactory(cast("TextIO", text)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(text)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=last, foreign_pre_chain=[_complete]))
    # Libraries' warnings only: at info and below aiohttp and uvicorn print URLs and addresses of callers.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


class _Lines:
    """Takes the lines of the log. Structlog's own has a lock, which a line out of a destructor would wait for."""

    def __init__(self, *_name: Any) -> None:
        self._write = output().write

    def msg(self, line: bytes) -> None:
        """Take a line, without its newline."""
        self._write(line + b"\n")

    log = debug = info = warn = warning = err = error = critical = fatal = exception = msg


def _complete(_logger: Any, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add level and time, the places of an exception, and what to do where a library says only what happened.

    The places stand where the traceback, with the exception's message, would be rendered.
    """
    line["level"] = "error" if method == "exception" else method
    line["timestamp"] = to_micros(time.time())
    exc_info = line.pop("exc_info", None)
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        line["error"] = where(error)
    if hint := HINTS.get(line["event"]):
        line["hint"] = hint
    return line


def _to_bytes(_logger: Any, _method: str, line: structlog.typing.EventDict) -> bytes:
    return to_line(line)


def _to_json(line: Any, **_options: Any) -> str:
    return to_line(line).decode()


def to_line(facts: Any) -> bytes:
    """Return facts as one line of JSON, whatever is in them: a half of a surrogate pair is no UTF-8, but may come."""
    try:
        return orjson.dumps(facts, default=str)
    except orjson.JSONEncodeError:
        return json.dumps(facts, default=str).encode()


def gather_facts() -> dict[str, Any]:
    """Collect what this task notes from now on, for the canonical line: a server has a task for each request."""
    facts: dict[str, Any] = {}
    _facts.set(facts)
    return facts


def current_facts() -> Mapping[str, Any]:
    """Return what has been noted of the request under way."""
    return _facts.get() or {}


def note(**facts: Any) -> None:
    """Add facts to the canonical line of the request under way; outside a request, do nothing."""
    gathered = _facts.get()
    if gathered is not None:
        gathered.update(facts)


def where(error: BaseException) -> list[str]:
    """Return the error's type and the places it came through, without its message.

    Messages are left out on purpose: a library may quote a value in one, and a value may be a secret.
    """
    frames = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    return [type(error).__qualname__, *frames[-6:]]
