"""The documentation's fenced blocks, which readers type and save: what tests execute."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from support.processes import ROOT

_OPENING = re.compile(r"^```(\S*) ?(.*)$")


@dataclass(frozen=True)
class Block:
    """One block. `name` is the file that it is saved as, where its first line names one after the language."""

    page: str
    number: int
    """Among the page's blocks of this language, from 1."""
    language: str
    name: str
    line: int
    text: str = field(repr=False)

    @property
    def id(self) -> str:
        return f"{self.page} {self.language} {self.number}"


@cache
def blocks(page: str, language: str | None = None) -> tuple[Block, ...]:
    """The blocks of a page of the repository, in order; of one language, or all. Fails where one is never closed."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for line, text in enumerate((ROOT / page).read_text().splitlines(), 1):
        if opened is None and (match := _OPENING.match(text)):
            opened, inside = (line, match[1], match[2]), []
        elif opened is not None and text == "```":
            start, kind, name = opened
            number = 1 + sum(each.language == kind for each in found)
            found.append(Block(page, number, kind, name, start, "\n".join(inside) + "\n"))
            opened = None
        else:
            inside.append(text)
            assert opened is not None or "```" not in text, f"{page}:{line}: a fence that stands within something"
    assert opened is None, f"{page}: the block of line {opened and opened[0]} is never closed"
    return tuple(each for each in found if language in (None, each.language))


def named(page: str) -> dict[str, str]:
    """What the page has saved as files, by name."""
    files = {each.name: each.text for each in blocks(page) if each.name}
    assert len(files) == sum(bool(each.name) for each in blocks(page)), f"{page}: two blocks are one file"
    return files


def save(page: str, folder: Path) -> list[Path]:
    """Save a page's files below *folder*, as its reader would."""
    paths = []
    for name, text in named(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def exists(test: str) -> bool:
    """Whether there is a test of this name, `tests/file::function`."""
    file, _, function = test.partition("::")
    path = ROOT / file
    return (
        path.is_file()
        and re.search(rf"^(async )?def {re.escape(function)}\(", path.read_text(), re.MULTILINE) is not None
    )
