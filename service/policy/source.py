"""A YAML file with the place of everything in it.

YAML 1.2's core schema, as editors and people expect it: `on`, `no` and `12:30` are text. Duplicate keys, tags,
merge keys and values nested too deep are refused, each with line and column.
"""

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
MAX_NODES: Final = 100_000
"""Values in one file, aliases counted as often as they are used: the bound on an alias bomb."""

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


class SourceError(ValueError):
    """The file is not YAML of the kind that we read."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def read_source(path: Path) -> Source:
    """Read one file; raise `SourceError` with the place of its first mistake."""
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.CBaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            Mistake(file, 1, 1, f"can't be read: {getattr(error, 'strerror', None) or error}")
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise SourceError(
            Mistake(file, line, column, f"not valid YAML: {error.problem or error.context}")
        ) from None
    except yaml.YAMLError:
        raise SourceError(Mistake(file, 1, 1, "not valid YAML: a character that may not stand there")) from None
    if not isinstance(node, yaml.MappingNode):
        raise SourceError(Mistake(file, 1, 1, "holds no map of settings; start with `tenant: …`"))
    reading = _Reading(file)
    tree: dict[str, Any] = reading.value(node, ())
    return Source(file, tree, reading.places)


class _Reading:
    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Route, Place] = {}

    def value(self, node: Any, route: Route) -> Any:
        self.places.setdefault(route, _place(node))
        if len(route) > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels")
        if len(self.places) > MAX_NODES:
            raise self._error(node, f"more than {MAX_NODES:,} values in one file")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, route)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*route, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _map(self, node: yaml.MappingNode, route: Route) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be plain text")
            key = key_node.value
            if key == "<<" and not key_node.style:
                raise self._error(key_node, "merge keys are not read; use `extends`")
            if key in result:
                first = self.places[*route, key]
                raise self._error(key_node, f"`{key}` stands here a second time; the first is on line {first[0]}")
            self.places[*route, key] = _place(key_node)
            result[key] = self.value(value_node, (*route, key))
        return result

    def _error(self, node: Any, message: str) -> SourceError:
        return SourceError(Mistake(self.file, *_place(node), message))


def _place(node: Any) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style:  # quoted or a block: text, whatever it looks like
        return text
    for pattern, convert in _CORE:
        if pattern.fullmatch(text):
            return convert(text)
    return text
