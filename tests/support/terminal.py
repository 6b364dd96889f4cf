"""A reader at the terminal: commands typed into one shell, and servers that go on beside it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self


class Terminal:
    """A shell in *folder* that has *environ* and nothing else, started by *command* where it shall have a root or a
    network of its own. What it and its servers print is kept in *prints*; *root* is where both lie.
    """

    def __init__(
        self,
        folder: Path,
        prints: Path,
        environ: Mapping[str, str],
        *,
        command: Sequence[str] = (),
        root: Path = Path("/"),
    ) -> None:
        self._prints, self._root = prints, root
        self._count = 0
        prints.mkdir(parents=True, exist_ok=True)
        with (prints / "shell").open("wb") as output:
            self._shell = subprocess.Popen(
                [*command, "bash", "--noprofile", "--norc"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=dict(environ),
                start_new_session=True,
            )
        self._send(f"cd {self._seen(folder)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the shell and all that was started from it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._shell.pid, number)
            if self._all_gone(within=20.0):
                break
        assert self._shell.stdin
        with suppress(BrokenPipeError):
            self._shell.stdin.close()

    def type(self, text: str, *, within: float = 60.0) -> tuple[int, str]:
        """Type what may be several lines; return the last one's exit code, and all that was printed."""
        output, ended = self._files()
        self._send(f"{{\n{text}\n}} >{self._seen(output)} 2>&1 </dev/null\necho $? >{self._seen(ended)}")
        self._until(lambda: _told(ended), within, text, output)
        return int(ended.read_text()), output.read_text()

    def serve(self, text: str, ready: str, *, within: float = 60.0) -> re.Match[str]:
        """Type what stays; return what it printed that says so (the pattern *ready*)."""
        output, ended = self._files()
        self._send(f"({{\n{text}\n}} >{self._seen(output)} 2>&1 </dev/null; echo $? >{self._seen(ended)}) &")
        self._until(lambda: _told(ended) or _found(ready, output), within, text, output)
        found = _found(ready, output)
        assert found, f"it ended: {text}\n{output.read_text()}"
        return found

    def _all_gone(self, *, within: float) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            self._shell.poll()  # else the shell itself stays, as a zombie
            try:
                os.killpg(self._shell.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.02)
        return False

    def _files(self) -> tuple[Path, Path]:
        self._count += 1
        return self._prints / f"{self._count}-printed", self._prints / f"{self._count}-ended"

    def _send(self, text: str) -> None:
        assert self._shell.stdin
        self._shell.stdin.write(text + "\n")
        self._shell.stdin.flush()

    def _seen(self, path: Path) -> str:
        """How the shell calls a path of ours."""
        return f"'/{path.relative_to(self._root)}'"

    def _until(self, done: Callable[[], object], within: float, text: str, output: Path) -> None:
        deadline = time.monotonic() + within
        while not done():
            printed = output.read_text() if output.exists() else (self._prints / "shell").read_text()
            assert time.monotonic() < deadline, f"not within {within} s: {text}\n{printed}"
            assert self._shell.poll() is None, f"the shell ended: {text}\n{printed}"
            time.sleep(0.02)


def _told(ended: Path) -> bool:
    return ended.exists() and ended.read_text().endswith("\n")


def _found(pattern: str, output: Path) -> re.Match[str] | None:
    return re.search(pattern, output.read_text()) if output.exists() else None
