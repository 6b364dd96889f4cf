"""A YAML file with the place of everything in it.

YAML 1.2's core schema, as editors and people expect it: `on`, `no` and `12:30` are text. Duplicate keys, aliases,
merge keys and values nested too deep are refused, each with line and column. Tags mean nothing.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

Place = tuple[int, int]
"""Line and column, both from 1."""
Route = tuple[str | int, ...]
"""Keys and list indexes from the top of the file to a value."""

MAX_DEPTH: Final = 32
MAX_BYTES: Final = 256 * 1024
"""Of one file."""

YAML_HINTS: Final = {
    "cannot start any token": "; a tab? Indent with spaces, and put text with a sign in front in quotes",
    "did not find expected": "; does the indentation match the lines above?",
    "could not find expected ':'": "; is a space missing after a colon, here or on the line before?",
    "mapping values are not allowed": "; put text with a colon in it in quotes",
}
"""What people mostly did, by a part of what the parser says."""

_CORE: Final[tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...]] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 0)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """Something wrong in a file: where, what, and what would be right."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file's tree of plain values, and the place of each by its route."""

    file: str
    tree: dict[str, Any]
    places: Mapping[Route, Place] = field(repr=False)
    digest: bytes = b""
    """Of the bytes that were read."""


class SourceError(ValueError):
    """The file is not YAML of the kind that we read."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def read_source(path: Path) -> Source:
    """Read one file; raise `SourceError` with the place of its first mistake."""
    file, raw = str(path), b""
    reading = _Reading(file)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise SourceError(Mistake(file, 1, 1, f"larger than {MAX_BYTES // 1024} KiB"))
        for event in yaml.parse(raw.decode("utf-8"), Loader=yaml.CBaseLoader):
            reading.take(event)
    except OSError as error:
        raise SourceError(Mistake(file, 1, 1, f"can't be read: {error.strerror or error}")) from None
    except UnicodeDecodeError as error:
        raise SourceError(Mistake(file, *_at(raw, error.start), "can't be read: not UTF-8")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or ""
        hint = next((hint for text, hint in YAML_HINTS.items() if text in problem), "")
        raise SourceError(Mistake(file, line, column, f"not valid YAML: {problem}{hint}")) from None
    except yaml.reader.ReaderError as error:
        place = _at(raw, error.position)
        raise SourceError(Mistake(file, *place, "not valid YAML: a character that may not stand there")) from None
    if not isinstance(reading.top, dict):
        raise SourceError(Mistake(file, 1, 1, "holds no map of settings; start with `tenant: …`"))
    return Source(file, reading.top, reading.places, hashlib.sha256(raw).digest())


def _at(raw: bytes, offset: int) -> Place:
    """Return the place of a byte."""
    before = raw[:offset]
    return before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1


class _Reading:
    """Puts the parser's events together, without recursion: nesting is whoever wrote the file's to choose."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Route, Place] = {}
        self.top: Any = None
        self._open: list[tuple[Any, Route]] = []
        """The maps and lists under way, innermost last."""
        self._key: list[str | None] = []
        """For each of them: the key whose value comes next."""
        self._documents = 0

    def take(self, event: Any) -> None:
        """Take the parser's next event."""
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._open.pop()
                self._key.pop()
            case yaml.AliasEvent():
                raise self._error(event, "aliases are not read; write the value out, or use `extends`")
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._error(event, "a second document; a file holds one")

    def _scalar(self, event: Any) -> None:
        container = self._open[-1][0] if self._open else None
        if isinstance(container, dict) and self._key[-1] is None:
            self._next_key(event, container)
        else:
            self._put(event, self._value(event))

    def _next_key(self, event: Any, container: dict[str, Any]) -> None:
        key: str = event.value
        route = (*self._open[-1][1], key)
        if key == "<<" and not event.style:
            raise self._error(event, "merge keys are not read; use `extends`")
        if key in container:
            raise self._error(event, f"`{key}` stands here a second time; the first is on line {self.places[route][0]}")
        self.places[route] = _place(event)
        self._key[-1] = key

    def _begin(self, event: Any, container: Any) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        route = self._put(event, container)
        self._open.append((container, route))
        self._key.append(None)

    def _put(self, event: Any, value: Any) -> Route:
        """Put a value where it belongs and return its route."""
        if not self._open:
            self.top = value
            self.places[()] = _place(event)
            return ()
        container, at = self._open[-1]
        if isinstance(container, list):
            route: Route = (*at, len(container))
            container.append(value)
            self.places[route] = _place(event)
            return route
        key = self._key[-1]
        if key is None:
            raise self._error(event, "a key must be plain text")
        self._key[-1] = None
        container[key] = value
        return (*at, key)

    def _value(self, event: Any) -> Any:
        text: str = event.value
        if event.style:  # quoted or a block: text, whatever it looks like
            return text
        for pattern, convert in _CORE:
            if pattern.fullmatch(text):
                try:
                    return convert(text)
                except ValueError:  # Python reads integers of at most 4,300 digits
                    raise self._error(event, "a number too long to read") from None
        return text

    def _error(self, event: Any, message: str) -> SourceError:
        return SourceError(Mistake(self.file, *_place(event), message))


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
