"""The real command for a fraction of what its start costs: a process imports it once, and forks for each call.

Run as a script it is that process: calls come in and process ids go out, a line each. What is forked finds an
environment, a directory and files of its own, and ends as every Python process does, but for one thing: the memory
that it shares with this process is left to the kernel. To take it apart would copy all of it first, for half a second.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 45
"""Seconds after which a call that should end by itself is killed."""
LOOK = 0.005
"""Seconds between looks at whether a process has ended."""


@dataclass(frozen=True)
class Call:
    """What a person typed, where, and with which variables set."""

    arguments: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: str = str(ROOT)
    user: int | None = None
    """Who runs it; only root can choose."""
    written: str = ""
    """What comes on standard input."""
    out: str | None = None
    """Where standard output goes, where not into the result."""


@dataclass(frozen=True)
class Ran:
    """What became of a call."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Forked:
    """A process that runs the command. What `subprocess.Popen` can do, as far as tests need it."""

    def __init__(self, pid: int, told: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        if self.returncode is None and self._told.exists():
            self.returncode = int(self._told.read_text())
            self._told.unlink()
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("chatkit-mint", timeout)
            time.sleep(LOOK)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """A process that can become the command."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="zygote-")
        self._calls = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def start(self, call: Call, out: Path, err: Path | None = None) -> Forked:
        """Start the command, in a session of its own; its output goes to the end of these files."""
        assert self._process.stdin
        assert self._process.stdout
        self._calls += 1
        given, told = (Path(self._home.name) / f"{self._calls}.{what}" for what in ("in", "exit"))
        given.write_text(call.written)
        for each in (out, err or out):
            each.touch()
        where = {"given": str(given), "told": str(told), "out": call.out or str(out), "err": str(err or out)}
        self._process.stdin.write(json.dumps({**asdict(call), **where}) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), told)

    def run(self, call: Call) -> Ran:
        """Run the command to its end."""
        out, err = (Path(self._home.name) / f"{self._calls}.{what}" for what in ("out", "err"))
        forked = self.start(call, out, err)
        try:
            code = forked.wait()
        finally:
            forked.kill()
        return Ran(code, "" if call.out else out.read_text(), err.read_text())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=PATIENCE)
        self._home.cleanup()


@cache
def zygote() -> Zygote:
    """Return this test process's own."""
    made = Zygote()
    atexit.register(made.close)
    return made


class _Forking:
    """The loop of the process that forks."""

    def __init__(self) -> None:
        self._told: dict[int, str] = {}
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> dict[str, Any] | None:
        """Fork for every call. Returns None at the end; in a child, the call that it is to be."""
        rest = b""
        while True:
            found, _, _ = select.select([0, self._reading], [], [])
            if self._reading in found:
                os.read(self._reading, 1024)
                self._reap()
            if 0 in found:
                if not (read := os.read(0, 65_536)):
                    return None
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    call: dict[str, Any] = json.loads(line)
                    if not self._fork(call):
                        return call

    def _fork(self, call: dict[str, Any]) -> bool:
        """Return whether this is still the process that forks."""
        pid = os.fork()
        if pid:
            self._told[pid] = call["told"]
            os.write(1, b"%d\n" % pid)
            return True
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._reading)
        os.close(self._writing)
        return False

    def _reap(self) -> None:
        while self._told:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            told = self._told.pop(pid)
            Path(f"{told}-").write_text(str(os.waitstatus_to_exitcode(status)))
            Path(f"{told}-").rename(told)  # whole or not at all


def _become(call: dict[str, Any], command: Callable[[], None]) -> None:
    os.setsid()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, stream in enumerate(
        (os.open(call["given"], os.O_RDONLY), os.open(call["out"], flags), os.open(call["err"], flags))
    ):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["environ"])
    tempfile.tempdir = None  # of the environment that was
    sys.argv = [str(ROOT / "service" / "__main__.py"), *call["arguments"]]
    if call["user"] is not None:
        os.setgroups([])
        os.setuid(call["user"])
    try:
        command()
    except SystemExit as end:
        if isinstance(end.code, str):  # to be printed, by Python
            raise
        code = end.code or 0
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    import service.cli  # noqa: F401, PLC0415  (all that takes long; the tests themselves need none of it)
    from service.__main__ import main  # noqa: PLC0415

    call = _Forking().serve()
    if call is not None:
        _become(call, main)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not the folder of this file, whose names are common ones
    _main()
