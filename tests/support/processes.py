"""The real commands, as processes of their own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2

from support.zygote import Call, Forked, zygote

COMMAND = [sys.executable, "-m", "service"]
START_TIMEOUT = 30.0
ROOT = Path(__file__).parents[2]


_HELD: list[socket.socket] = []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def deaf_port() -> int:
    """A port on which nobody listens, nor can begin to while this process lives: tests run side by side."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    port: int = held.getsockname()[1]
    return port


def clean_environ(**changes: str) -> dict[str, str]:
    """The environment without what would configure the service, or a `make` inside this one."""
    ours = ("CHATKIT_MINT_", "OPENAI_", "MAKE", "MFLAGS", "ARGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **changes}


class Process:
    """A command under way; its output goes to a file, so that nobody has to read a pipe.

    Ours is forked from a process that has imported it (support/zygote.py), others are started.
    """

    def __init__(
        self,
        *arguments: str,
        output: Path,
        environ: Mapping[str, str],
        cwd: Path = ROOT,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.output = output
        if command is COMMAND:
            call = Call(arguments, environ, str(cwd))
            self.popen: subprocess.Popen[bytes] | Forked = zygote().start(call, output)
            return
        with output.open("ab") as sink:
            self.popen = subprocess.Popen(
                [*command, *arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(environ),
                cwd=cwd,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches; fail with the output where the process ends first."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text()):
                return found
            if self.popen.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the output:\n{self.text()}")

    def wait_ready(self, url: str) -> None:
        """Wait until *url* answers 200."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.popen.poll() is None:
            try:
                if httpx2.get(url, timeout=2.0).status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{url} did not get ready:\n{self.text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise
