"""docs/security.md: every test that it names is there; and what it promises of development and of npm."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.pages import exists
from support.processes import ROOT
from support.terminal import Terminal

PAGE = (ROOT / "docs" / "security.md").read_text()
THREATS = re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
"""As `/proc/net/tcp` and `tcp6` write 127.0.0.1 and ::1."""


def test_every_threat_says_what_is_promised_what_is_not_and_which_tests_hold_it() -> None:
    assert len(THREATS) >= 19
    for threat, text in THREATS:
        parts = re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE)
        assert parts == ["Promised", "Not promised", "Tests"], threat
        assert "::test_" in text.partition("**Tests.**")[2], threat


NAMED = sorted({name for _, text in THREATS for name in re.findall(r"`([\w/]+\.py::\w+)`", text)})


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name: str) -> None:
    assert exists(f"tests/{name}")


def test_no_test_is_named_in_a_way_that_nobody_checks() -> None:
    text = "".join(text for _, text in THREATS)
    assert len(re.findall(r"test_\w+", re.sub(r"[\w/]*test_\w+\.py::", "", text))) == len(re.findall("::", text))
    assert len(NAMED) > 40


@pytest.mark.process
def test_dev_listens_on_loopback_and_keeps_its_keys_to_itself(
    open_terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal = open_terminal(ROOT)
    terminal.serve(f"chatkit-mint dev --dir '{tmp_path}/dev'", "chatkit-mint is ready")
    _, table = terminal.type("cat /proc/net/tcp /proc/net/tcp6")
    rows = (line.split() for line in table.splitlines() if ":" in line)
    listening = {row[1] for row in rows if row[3] == "0A"}
    assert {int(each.rpartition(":")[2], 16) for each in listening} >= {8080, 8081, 9464}
    assert {each.rpartition(":")[0] for each in listening} <= LOOPBACK
    for name in ("identity-provider.pem", "admin.key"):
        assert stat.S_IMODE((tmp_path / "dev" / name).stat().st_mode) == 0o600


def test_the_service_itself_knows_nothing_of_dev() -> None:
    program = "import sys, service.app, service.serve; print([each for each in sys.modules if 'service.dev' in each])"
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["tests/browser", "tests/bench/peers/express"])
def test_npm_packages_are_pinned_by_integrity_from_no_named_place(folder: str) -> None:
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name
    wanted = json.loads((ROOT / folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
