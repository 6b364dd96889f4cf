"""Where lines go: through a bounded buffer and a thread of its own, so that no request waits for who reads them.

A pipe that nobody reads and a disk that is full cost lines, which are counted, and never a request.
"""

import atexit
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import orjson

MOST: Final = 4 * 2**20
"""Bytes that wait at most: some 10,000 lines."""
GATHER: Final = 0.01
"""Seconds in which lines gather, so that many share a write."""
PATIENCE: Final = 1.0
"""Seconds at the end for what still waits."""


class Sink:
    """Lines, in order, to a file descriptor or to the end of a file.

    *on_drop* is told how many lines were lost. The thread begins with the first line, in whichever process that is.
    """

    def __init__(self, target: int | Path, *, most: int = MOST) -> None:
        self._target = target
        self._most = most
        self._opened: int | None = None
        self._reopen = False
        self._torn = False
        self.on_drop: Callable[[int], object] = _ignore
        self._begin_anew()
        os.register_at_fork(after_in_child=self._begin_anew)
        if isinstance(target, Path):
            self._opened = _open(target)  # a path that can't be written to is a mistake to be told at start

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._unreported = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self.shared = False
        """Whether other processes write there too: lines of theirs must not come into the middle of ours."""
        self.at_once = False
        """Whether lines are written by who calls, without a thread: for a process that forks, and writes few."""

    def write(self, line: bytes) -> int:
        """Take a line (or several), newline and all; drop it where too many wait already."""
        if self.at_once:
            self._write_at_once(line)
            return len(line)
        with self._lock:
            if self._size + len(line) > self._most:
                self._unreported += 1
                dropped = True
            else:
                self._lines.append(line)
                self._size += len(line)
                dropped = False
        if dropped:
            self.on_drop(1)
        elif not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        return len(line)

    def _write_at_once(self, line: bytes) -> None:
        """Write now or never."""
        try:
            descriptor = self._descriptor()
            if select.select([], [descriptor], [], 0)[1]:  # a pipe takes at least 4 KiB then, and nobody waits
                self._put(line)
                return
        except OSError:
            pass
        self.on_drop(1)

    def flush(self) -> None:
        """Do nothing: nobody waits."""

    def reopen(self) -> None:
        """Open the file anew before the next line: it may have been moved away."""
        self._reopen = True

    def close(self, within: float = PATIENCE) -> None:
        """Write what waits, for at most *within* seconds."""
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        while not (self._closing and not self._lines):
            self._wake.wait()
            if not self._closing:
                time.sleep(GATHER)
            self._wake.clear()
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
            lost, self._unreported = self._unreported, 0
        if lost:
            lines.append(orjson.dumps({"event": "log_lines_dropped", "level": "warning", "lines": lost}) + b"\n")
        for piece in _pieces(lines) if self.shared else [lines]:
            try:
                self._put(b"".join(piece))
            except OSError:
                self.on_drop(len(piece))
        with self._lock:
            self._size = sum(map(len, self._lines))

    def _put(self, text: bytes) -> None:
        descriptor = self._descriptor()
        rest = memoryview(b"\n" + text if self._torn else text)
        while rest:
            try:
                written = os.write(descriptor, rest)
            except BlockingIOError:  # somebody else made it so
                select.select([], [descriptor], [], 1.0)
                continue
            except OSError:
                self._torn = len(rest) < len(text)
                raise
            rest = rest[written:]
        self._torn = False

    def _descriptor(self) -> int:
        if isinstance(self._target, int):
            return self._target
        if self._opened is None or self._reopen:
            self._reopen = False
            former, self._opened = self._opened, _open(self._target)
            if former is not None:
                os.close(former)
        return self._opened


class TextSink(io.TextIOBase):
    """A sink for who writes text."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        """Take text, lines or parts of them."""
        self._sink.write(text.encode(errors="replace"))
        return len(text)


def _pieces(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Yield lines together as far as a pipe takes them in one piece; a longer line alone."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > select.PIPE_BUF:
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield piece


def _ignore(_lines: int) -> None:
    pass


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
