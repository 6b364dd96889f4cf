"""README and quickstart, typed as they stand, on a loopback of their own. `make walk` does it in a clean root."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import ROOT
from support.terminal import Terminal
from support.walk import walk

pytestmark = pytest.mark.process


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The working tree as it is now, with nothing that a run leaves behind; installed already."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    folder = tmp_path / "clone"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)  # with its time: make installs again what is newer than the stamp
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def test_every_command_does_what_the_text_says(open_terminal: Callable[[Path], Terminal], clone: Path) -> None:
    if not (ROOT / ".venv").exists():
        pytest.skip("there is no .venv that `make setup` made")
    steps = [text for text, _ in walk(open_terminal(clone), clone)]
    assert len(steps) == 10
