"""No command of the documentation goes untried: every `sh` block is typed by a test, or it says here why it is not."""

import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from service.cli.base import app as cli
from support.pages import Block, blocks, exists, save
from support.processes import COMMAND, ROOT
from support.terminal import Terminal

PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("quickstart", "tenants", "migration", "security", "frontend", "deploy")),
]


@dataclass(frozen=True)
class Typed:
    """By the test of this name."""

    test: str


@dataclass(frozen=True)
class Looked:
    """Not typed, for this reason. It is shell, and its commands and options exist."""

    reason: str


WALK = Typed("tests/docs/test_quickstart.py::test_every_command_does_what_the_text_says")
MACHINE = Looked("administers a machine, a cluster or an engine; tests/deploy/test_docs.py looks further")
HOW: dict[str, Typed | Looked] = {
    "README.md sh 1": WALK,
    "README.md sh 2": Typed("tests/docs/test_blocks.py::test_the_readmes_commands_for_production"),
    **{f"docs/quickstart.md sh {n}": WALK for n in range(1, 9)},
    "docs/tenants.md sh 1": Typed("tests/docs/test_blocks.py::test_the_tenants_are_checked_as_the_page_says"),
    "docs/tenants.md sh 2": Typed("tests/docs/test_blocks.py::test_the_tenants_are_checked_as_the_page_says"),
    "docs/migration.md sh 1": Typed("tests/docs/test_migration.py::test_the_service_stands_in_for_the_starters_server"),
    "docs/migration.md sh 2": Typed("tests/docs/test_migration.py::test_the_service_stands_in_for_the_starters_server"),
    "docs/frontend.md sh 1": Typed("tests/browser/test_docs.py::test_the_integrity_value_goes_where_the_page_says"),
    **{f"docs/deploy.md sh {n}": MACHINE for n in range(1, 7)},
}
ALL = {block.id: block for page in PAGES for block in blocks(page, "sh")}


def test_every_block_is_typed_or_says_why_not() -> None:
    assert sorted(HOW) == sorted(ALL)


def test_commands_stand_in_blocks_that_are_looked_at() -> None:
    """Nothing hides in a block of another name."""
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages <= {"sh", "yaml", "html", "ts", "tsx", "vue", "js"}


@pytest.mark.parametrize("test", sorted({how.test for how in HOW.values() if isinstance(how, Typed)}))
def test_the_test_that_types_it_exists(test: str) -> None:
    assert exists(test)


OUR_COMMANDS = sorted(each.name for each in cli.registered_commands if each.name)
LOOKED = [block for block in ALL.values() if isinstance(HOW.get(block.id), Looked)]


@pytest.mark.parametrize("block", LOOKED, ids=lambda block: block.id)
def test_what_is_not_typed_is_shell_and_its_commands_exist(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, timeout=10, check=True)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert set(words[1:2]) <= targets(), line
        for place, word in enumerate(words):
            # `python -m service` is the command where the package is not installed.
            if word in ("chatkit-mint", "service") and words[place + 1 :] and words[place + 1] in OUR_COMMANDS:
                given = {each.partition("=")[0] for each in words[place + 2 :] if each.startswith("--")}
                assert given <= options_of(words[place + 1]), line


def test_the_pages_that_are_looked_at_name_commands() -> None:
    text = "".join(block.text for block in LOOKED)
    assert len(re.findall(rf"(?:chatkit-mint|-m service) (?:{'|'.join(OUR_COMMANDS)})\b", text)) == 4


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def options_of(command: str) -> set[str]:
    told = subprocess.run([*COMMAND, command, "--help"], capture_output=True, text=True, timeout=20, check=True)
    return set(re.findall(r"--[a-z-]+", told.stdout))


@pytest.mark.process
def test_the_readmes_commands_for_production(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """The example tenants, whose issuer is the development identity provider: it must be there, on its own port."""
    *lines, serve = ALL["README.md sh 2"].text.strip().split("\n")
    terminal = open_terminal(ROOT)
    where = shlex.quote(str(tmp_path))
    dev = f"chatkit-mint dev --dir {where}/dev --port 8180 --ops-port 9564 --demo-port 0"
    terminal.serve(dev, "chatkit-mint is ready")
    for line, told in zip(lines, ("config: fine.", "acme: granted", "", r"\b0 wrong\."), strict=True):
        code, printed = terminal.type(line)
        assert code == 0, printed
        assert re.search(told, printed), printed
    terminal.type(f"export CHATKIT_MINT_REDIS_DIR={where}/redis")
    terminal.serve(serve, '"event":"listening"')


@pytest.mark.process
def test_the_tenants_are_checked_as_the_page_says(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    save("docs/tenants.md", folder)
    terminal = open_terminal(folder)
    code, printed = terminal.type(ALL["docs/tenants.md sh 1"].text)
    assert code == 0, printed
    assert re.search(r"config: fine\. Tenants: .*supabase.*\. \d\d tests passed\.", printed), printed
    assert "plans: granted" in printed
    assert "warning" not in printed
    code, printed = terminal.type(ALL["docs/tenants.md sh 2"].text)
    assert code == 0
    assert re.search(r"sha256: [0-9a-f]{64}", printed)
