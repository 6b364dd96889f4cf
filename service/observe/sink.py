"""Where lines go: through a bounded buffer and a thread of its own, so that no request waits for who reads them.

A pipe that nobody reads and a disk that is full cost lines, which are counted, and never a request.
"""

import atexit
import errno
import io
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import orjson

from service.observe.timestamps import to_millis

MOST: Final = 4 * 2**20
"""Bytes that wait at most: some 10,000 lines."""
GATHER: Final = 0.01
"""Seconds in which lines gather, so that many share a write."""
PATIENCE: Final = 1.0
"""Seconds at the end for what still waits."""
ATOMIC: Final = select.PIPE_BUF
"""Bytes of one write: several processes may share a pipe, and up to so many come out of it in one piece."""


class Sink:
    """Lines, in order, to a file descriptor or to the end of a file.

    *on_drop* is told how many lines were lost, *on_trouble* the first of several errors in a row. *stream* marks the
    line that tells of losses. The thread begins with the first line, in whichever process that is.

    The collector of garbage may run in here, and what it finds may log: so nothing that is held here makes it wait.
    """

    def __init__(self, target: int | Path, *, most: int = MOST, stream: str | None = None) -> None:
        self._target = target
        self._most = most
        self._marks = {"stream": stream} if stream else {}
        self._descriptor = target if isinstance(target, int) else -1
        self._reopen = False
        self._torn = False
        self._known = ""
        self.on_drop: Callable[[int], object] = _ignore
        self.on_trouble: Callable[[str], object] = _ignore
        self._begin_anew()
        if isinstance(target, Path):
            self._descriptor, self._torn = _open(target)  # a mistake in the path is to be told at start
        os.register_at_fork(after_in_child=self._begin_anew)
        atexit.register(self.close)

    def _begin_anew(self) -> None:
        """Begin with nothing: what waits in the process that forked is that one's to write."""
        self._lock = threading.RLock()
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._size = 0
        self._unreported = 0
        self._closing = False
        self._started = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.at_once = False
        """Whether lines are written by who calls, without a thread: for a process that forks, and writes few."""

    def write(self, line: bytes) -> int:
        """Take a line (or several), newline and all; drop it where too many wait already."""
        size, lost = len(line), 0
        if self.at_once:
            self._deliver([line])
            return size
        with self._lock:
            if self._size + size <= self._most and not self._closing:
                self._size += size
            else:
                lost = max(1, line.count(b"\n"))
                self._unreported += lost
            begin, self._started = not self._started and not self._closing, True
        if not lost:
            self._lines.put(line)
        else:
            self.on_drop(lost)
            if self._lines.empty():
                self._lines.put(b"")  # the loss is told though no line follows
        if begin:
            self._thread.start()
        return size

    def flush(self) -> None:
        """Do nothing: nobody waits."""

    def reopen(self) -> None:
        """Open the file anew before the next line: it may have been moved away."""
        self._reopen = isinstance(self._target, Path)

    def close(self, within: float = PATIENCE) -> None:
        """Write what waits, for at most *within* seconds; whatever comes later is dropped."""
        self._closing = True
        self._lines.put(b"")
        if self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        while not (self._closing and self._lines.empty()):
            lines = [self._lines.get()]
            if not self._closing:
                time.sleep(GATHER)
            while not self._lines.empty():
                lines.append(self._lines.get())
            self._deliver(lines)

    def _deliver(self, lines: list[bytes]) -> None:
        size = sum(map(len, lines))
        with self._lock:
            unreported, self._unreported = self._unreported, 0
        if unreported:
            lines.append(self._report(unreported))
        lost = self._put(list(_pieces(lines)))
        with self._lock:
            self._size -= size
            if lost:
                lost -= bool(unreported)  # the report, which is last: still to be made
                self._unreported += lost + unreported
        if lost:
            self.on_drop(lost)

    def _put(self, pieces: Sequence[bytes]) -> int:
        """Write all; return how many lines did not get there whole."""
        for number, piece in enumerate(pieces):
            rest = memoryview(piece)
            try:
                descriptor = self._opened()
                if self.at_once and not _takes(descriptor, 0):  # now or never: whoever calls would wait
                    raise BlockingIOError(errno.EAGAIN, "nobody reads")
                if self._torn:
                    _write(descriptor, memoryview(b"\n"))
                    self._torn = False
                while rest:
                    rest = rest[_write(descriptor, rest) :]
            except OSError as error:
                if len(rest) < len(piece):
                    self._torn = piece[-len(rest) - 1] != ord("\n")
                self._trouble(error)
                return max(1, sum(unwritten.count(b"\n") for unwritten in (bytes(rest), *pieces[number + 1 :])))
            if not self._reopen:
                self._known = ""
        return 0

    def _trouble(self, error: OSError) -> None:
        """Tell of an error, unless it is the one that was told last and has not gone away."""
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        known, self._known = self._known, name
        if name != known:
            self.on_trouble(name)

    def _opened(self) -> int:
        if self._reopen and isinstance(self._target, Path):
            self._reopen = False
            try:
                fresh, torn = _open(self._target)
            except OSError as error:
                # Rather to the file that was moved away than nowhere; tried again with the next lines.
                self._reopen = True
                self._trouble(error)
                return self._descriptor
            os.close(self._descriptor)
            self._descriptor, self._torn = fresh, torn
        return self._descriptor

    def _report(self, lines: int) -> bytes:
        now = to_millis(time.time())
        told = {**self._marks, "event": "log_lines_dropped", "level": "warning", "lines": lines, "timestamp": now}
        return orjson.dumps(told) + b"\n"


class TextSink(io.TextIOBase):
    """A sink for who writes text."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        """Take text, lines or parts of them."""
        self._sink.write(text.encode(errors="replace"))
        return len(text)


def _ignore(_told: object) -> None:
    pass


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Join lines to pieces that one write takes whole, as far as lines are short enough."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > ATOMIC:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if size:
        yield b"".join(piece)


def _write(descriptor: int, text: memoryview) -> int:
    while True:
        try:
            return os.write(descriptor, text)
        except BlockingIOError:
            _takes(descriptor, 1000)


def _takes(descriptor: int, wait: int) -> bool:
    """Return whether a write would not wait, a pipe's of up to 4 KiB; known after *wait* milliseconds at the latest."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(wait))


def _open(path: Path) -> tuple[int, bool]:
    """Open the end of a file; return also whether its last line is torn. A pipe that nobody reads is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    return descriptor, _ends_torn(path, os.fstat(descriptor))


def _ends_torn(path: Path, found: os.stat_result) -> bool:
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return False
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # one that may be written and not read
        return False
