"""`make walk`: what README and docs/quickstart.md say, typed as it stands, in a root that holds nothing else.

A fresh clone, an empty home, this machine's programs and a Python without packages; downloads included, with no cache.
Prints each step with its seconds. Exit code 1 where a step fails, or where all of it takes five minutes; 2 where it
can't be tried here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.image_check import ENTER, Stage, base, namespaces, pip_settings
from support.processes import ROOT
from support.terminal import Terminal
from support.walk import taken, walk

LIMIT = 300.0
"""Seconds, for all of it."""


def main() -> int:
    """Walk, print, and return the exit code."""
    unshare = namespaces()
    if unshare is None:
        return told("needs mount namespaces (Linux, unshare), which are not to be had here", 2)
    if ports := taken():
        return told(f"somebody listens on {', '.join(map(str, ports))}, which the pages name; stop that first", 2)
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        stage = base(Stage(Path(folder) / "root", unshare))
        home = stage.root / "home" / "reader"
        home.mkdir(parents=True)
        started = time.monotonic()
        clone = home / "chatkit-mint"
        subprocess.run(["git", "clone", "--quiet", "--no-local", str(ROOT), str(clone)], timeout=60, check=True)
        step("git clone", time.monotonic() - started)
        environ = {
            "PATH": stage.env["PATH"],
            "HOME": "/home/reader",
            "LANG": "C.UTF-8",
            "LD_LIBRARY_PATH": "/usr/local/lib",
            "PYTHONUNBUFFERED": "1",  # http.server says at once that it is ready, though nobody's terminal reads it
            **pip_settings(),
        }
        enter = [*unshare, str(ENTER), str(stage.root), "", ""]
        try:
            with Terminal(clone, stage.root / "tmp" / "prints", environ, command=enter, root=stage.root) as terminal:
                for text, seconds in walk(terminal, clone, setup=LIMIT):
                    step(text, seconds)
        except AssertionError as error:
            return told(f"FAILED: {error}", 1)
        total = time.monotonic() - started
        size = sum(each.stat().st_size for each in clone.joinpath(".venv").rglob("*") if each.is_file())
    told(f"{total:6.1f} s in all, {size / 1e6:.0f} MB installed", 0)
    return 0 if total < LIMIT else told(f"FAILED: {LIMIT:g} s is the limit", 1)


def step(text: str, seconds: float) -> None:
    """Print a step."""
    first, *more = text.split("\n")
    told(f"{seconds:6.1f} s  {first}{' …' if more else ''}", 0)


def told(text: str, code: int) -> int:
    """Print a line, and return the exit code that goes with it."""
    sys.stdout.write(f"walk: {text}\n")
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    if not shutil.which("git"):
        sys.exit(told("needs git", 2))
    os.umask(0o022)
    sys.exit(main())
