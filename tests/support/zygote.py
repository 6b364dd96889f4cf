"""The real command many times for the price of one start: a process imports it once and forks for each call.

Run as a script it is that process: calls come in and results go out as JSON, a line each.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 20
"""Seconds after which a call is killed: exit code -14."""


@dataclass(frozen=True)
class Ran:
    """What became of a call."""

    code: int
    out: str
    err: str


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


class Zygote:
    """A process that can become the command."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)
        self._process.stdout.close()

    def run(self, call: Call) -> Ran:
        """Run the command to its end."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(call)) + "\n")
        self._process.stdin.flush()
        return Ran(**json.loads(self._process.stdout.readline()))


def _become(call: dict[str, Any], streams: Sequence[int]) -> None:
    from service.cli import main  # noqa: PLC0415  (imported already: by who forked)

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    if call["out"] is not None:
        os.dup2(os.open(call["out"], os.O_WRONLY), 1)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["environ"])
    sys.argv = ["chatkit-mint", *call["arguments"]]
    signal.alarm(PATIENCE)
    if call["user"] is not None:
        os.setgroups([])
        os.setuid(call["user"])
    main()


def _run(call: dict[str, Any]) -> Ran:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(call["written"].encode())
        given.seek(0)
        pid = os.fork()
        if not pid:
            code = 70
            try:
                _become(call, [given.fileno(), out.fileno(), err.fileno()])
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
                if isinstance(ended.code, str):
                    sys.stderr.write(f"{ended.code}\n")
            except BaseException:  # noqa: BLE001  (what Python itself would do)
                sys.excepthook(*sys.exc_info())
            finally:
                with suppress(OSError):
                    sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        return Ran(os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode())


def _serve() -> None:
    import service.cli  # noqa: F401, PLC0415  (all that takes long; the tests themselves need none of it)

    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(_run(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _serve()
