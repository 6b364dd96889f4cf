"""Lines wait for nobody: pipes that nobody reads, disks that are full, files that are moved away."""

import errno
import gc
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.observe.sink import ATOMIC, Sink, TextSink

MOST = 10_000


class Lost:
    """What a sink says that it lost, and what trouble it had."""

    def __init__(self, sink: Sink) -> None:
        self.lines = 0
        self.troubles: list[str] = []
        sink.on_drop = self._count
        sink.on_trouble = self.troubles.append

    def _count(self, lines: int) -> None:
        self.lines += lines


class Pipe:
    """A pipe with a sink at its beginning, which is read when a test says so."""

    def __init__(self, *, blocking: bool = True) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, blocking)
        os.set_blocking(self.reader, False)
        self.sink = Sink(self.writer, most=MOST)
        self.lost = Lost(self.sink)
        self.text = b""

    def read(self) -> bytes:
        with suppress(BlockingIOError):
            self.text += os.read(self.reader, 2**20)
        return self.text

    def read_until(self, end: bytes) -> list[bytes]:
        until(lambda: end in self.read())
        return self.text.splitlines()


def until(condition: Callable[[], object], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def numbered(number: int, width: int = 100) -> bytes:
    return f"{number:0{width}}\n".encode()


def dropped(lines: list[bytes]) -> int:
    told = [json.loads(line) for line in lines if b"log_lines_dropped" in line]
    return sum(line["lines"] for line in told)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    pipe.sink.close()
    os.close(pipe.writer)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    home = tmp_path / "disk"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", home], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("optional checker: a disk that is full at the right moment needs the right to mount")
    yield home
    subprocess.run(["umount", "-l", home], check=True)


def test_lines_come_out_as_they_went_in(pipe: Pipe) -> None:
    for number in range(50):
        pipe.sink.write(numbered(number))
    assert pipe.read_until(numbered(49)) == [numbered(number).strip() for number in range(50)]
    assert pipe.lost.lines == 0


def test_each_threads_lines_keep_their_order_and_none_is_torn(pipe: Pipe) -> None:
    def write(thread: int) -> None:
        for number in range(200):
            while pipe.sink._size > MOST / 2:
                time.sleep(0.001)
            pipe.sink.write(b"%d %d\n" % (thread, number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: pipe.read().count(b"\n") == 1600)
    for thread in threads:
        thread.join()
    seen: dict[int, list[int]] = {}
    for line in pipe.text.splitlines():
        who, number = map(int, line.split())
        seen.setdefault(who, []).append(number)
    assert seen == {who: list(range(200)) for who in range(8)}
    until(lambda: pipe.sink._size == 0)


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_its_losses_are_told(pipe: Pipe) -> None:
    line = numbered(7, width=999)
    slowest = 0.0
    for _ in range(2000):
        started = time.perf_counter()
        pipe.sink.write(line)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5
    assert pipe.sink._size <= MOST
    assert pipe.lost.lines > 1000
    lines = pipe.read_until(b"log_lines_dropped")
    until(lambda: pipe.sink._lines.empty() and pipe.sink._size == 0)
    lines = pipe.read().splitlines()
    whole = sum(each + b"\n" == line for each in lines)
    assert whole + pipe.lost.lines == 2000
    assert dropped(lines) == pipe.lost.lines
    assert set(json.loads(lines[-1])) == {"event", "level", "lines", "timestamp"}


def test_a_pipe_that_another_made_nonblocking_is_waited_for() -> None:
    pipe = Pipe(blocking=False)
    for number in range(2000):
        while pipe.sink._size > MOST / 2:
            pipe.read()
        pipe.sink.write(numbered(number))
    lines = pipe.read_until(numbered(1999))
    assert (len(lines), pipe.lost.lines, pipe.lost.troubles) == (2000, 0, [])


def test_a_reader_who_is_gone_costs_lines_alone() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    for number in range(3):
        pipe.sink.write(numbered(number))
        until(lambda written=number + 1: pipe.lost.lines == written)  # type: ignore[misc]
    assert pipe.lost.troubles == ["EPIPE"]
    pipe.sink.write(b"\n")
    until(lambda: pipe.sink._size == 0)


def test_a_line_that_never_fits_is_told_though_none_follows(pipe: Pipe) -> None:
    pipe.sink.write(b"x" * MOST + b"\n")
    assert dropped(pipe.read_until(b"log_lines_dropped")) == 1


def test_no_write_to_a_pipe_is_longer_than_comes_out_in_one_piece(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    really = os.write

    def write(descriptor: int, text: bytes) -> int:
        sizes.append(len(text))
        return really(descriptor, text)

    monkeypatch.setattr(os, "write", write)
    for number in range(90):
        pipe.sink.write(numbered(number))
    pipe.read_until(numbered(89))
    assert sum(sizes) == 90 * 101
    assert max(sizes) <= ATOMIC
    assert len(sizes) < 20


def test_a_full_disk_costs_lines_and_the_file_goes_on_whole(small_disk: Path) -> None:
    path = small_disk / "audit"
    sink = Sink(path, stream="audit", most=10**7)
    lost = Lost(sink)
    for number in range(2000):
        sink.write(numbered(number))
    until(lambda: sink._size == 0)
    assert lost.lines > 1000
    assert lost.troubles == ["ENOSPC"]
    sink.write(numbered(0))
    until(lambda: sink._size == 0)  # fails again, with not a byte written
    until(lambda: lost.lines + path.read_bytes().count(b"\n") == 2001)
    assert not path.read_bytes().endswith(b"\n"), "the disk is so full that a line is torn"
    os.truncate(path, 30_000)
    sink.write(numbered(1))
    sink.write(numbered(2))
    until(lambda: path.read_bytes().endswith(b"}\n"))
    tail = path.read_bytes()[30_000:].splitlines()
    told = json.loads(tail[-1])
    assert [line for line in tail if line][-3:-1] == [numbered(1).strip(), numbered(2).strip()]
    assert (told["stream"], told["lines"]) == ("audit", lost.lines)
    sink.close()


def test_dev_full_is_counted_line_by_line() -> None:
    sink = Sink(Path("/dev/full"))
    lost = Lost(sink)
    for number in range(500):
        sink.write(numbered(number))
    sink.close()
    assert (lost.lines, lost.troubles) == (500, ["ENOSPC"])


@pytest.mark.parametrize("written", [0, 1, 50, 100, 101, 150])
def test_a_torn_line_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """However far a write came, and though the next fails altogether."""
    path = tmp_path / "audit"
    sink = Sink(path)
    lost = Lost(sink)
    really = os.write
    room = [written, 0, 0]

    def write(descriptor: int, text: bytes) -> int:
        if not room:
            return really(descriptor, text)
        if not room[0]:
            room.pop(0)
            raise OSError(errno.ENOSPC, "full")
        taken = really(descriptor, text[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", write)
    sink.write(numbered(1) + numbered(2))
    until(lambda: sink._size == 0)
    sink.write(numbered(3))
    until(lambda: sink._size == 0)
    room.clear()
    sink.write(numbered(4))
    until(lambda: sink._size == 0)
    whole = [numbered(1), numbered(2)][: written // 101]
    torn = [numbered(len(whole) + 1)[: written % 101] + b"\n"] if written % 101 else []
    until(lambda: lost.lines == 3 - len(whole))
    found = path.read_bytes().splitlines(keepends=True)
    assert found[:-1] == [*whole, *torn, numbered(4)]
    assert json.loads(found[-1])["lines"] == lost.lines
    assert dropped(found) == lost.lines


def test_a_file_that_ends_in_a_torn_line_gets_none_appended_to_it(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_bytes(b'{"event":"mi')
    sink = Sink(path)
    sink.write(b"{}\n")
    sink.close()
    assert path.read_bytes() == b'{"event":"mi\n{}\n'


def test_a_file_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    sink = Sink(path)
    sink.write(b"1\n")
    until(lambda: path.read_bytes() == b"1\n")
    path.rename(moved)
    sink.write(b"2\n")
    until(lambda: moved.read_bytes() == b"1\n2\n")
    sink.reopen()
    sink.write(b"3\n")
    sink.close()
    assert (moved.read_bytes(), path.read_bytes()) == (b"1\n2\n", b"3\n")
    assert path.stat().st_mode & 0o137 == 0


def test_a_file_that_can_not_be_opened_anew_goes_on_where_it_was_moved(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    sink = Sink(path)
    lost = Lost(sink)
    path.rename(moved)
    path.mkdir()
    sink.reopen()
    for number in range(3):
        sink.write(b"%d\n" % number)
        until(lambda written=number + 1: moved.read_bytes().count(b"\n") == written)  # type: ignore[misc]
    assert (lost.lines, lost.troubles) == (0, ["EISDIR"])
    path.rmdir()
    sink.write(b"3\n")
    sink.close()
    assert path.read_bytes() == b"3\n"


@pytest.mark.parametrize("bad", ["missing/audit", ".", "fifo"])
def test_a_path_that_nothing_can_be_written_to_is_told_at_once(tmp_path: Path, bad: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError):
        Sink(tmp_path / bad)


def test_a_child_writes_its_own_lines_and_not_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(path)
    sink.write(b"parent\n")
    until(path.read_bytes)
    for _ in range(200):
        sink.write(b"parent\n")  # some of them wait while the process forks
    child = os.fork()
    if child == 0:
        try:
            sink.write(b"child\n")
            sink.close(within=5.0)
        finally:
            os._exit(0)
    ended, status = 0, -1
    deadline = time.monotonic() + 10
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert status == 0
    sink.close()
    assert Counter(path.read_bytes().splitlines()) == {b"parent": 201, b"child": 1}


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    for number in range(50):
        sink = Sink(tmp_path / f"log{number}")
        sink.write(b"1\n")
        sink.write(b"2\n")
        sink.close()
        assert (tmp_path / f"log{number}").read_bytes() == b"1\n2\n"


def test_closing_waits_only_so_long_for_who_reads_nothing(pipe: Pipe) -> None:
    for _ in range(100):
        pipe.sink.write(b"x" * 999 + b"\n")
        time.sleep(0.001)
    started = time.monotonic()
    pipe.sink.close(within=0.3)
    assert 0.2 < time.monotonic() - started < 2.0
    before = pipe.lost.lines
    pipe.sink.write(b"too late\n")
    assert pipe.lost.lines == before + 1


def test_closing_what_was_never_used_takes_no_time(tmp_path: Path) -> None:
    started = time.monotonic()
    Sink(tmp_path / "log").close(within=5.0)
    assert time.monotonic() - started < 1.0


def test_what_the_collector_finds_may_log_from_within_a_write(pipe: Pipe) -> None:
    """A task that nobody waited for is told of by its destructor, which runs wherever the collector does."""

    class Told:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            pipe.sink.write(b"from a destructor\n")

    class Line(bytes):
        """Makes the collector run in the middle of a write, while whatever is locked there is locked."""

        def count(self, *of: Any) -> int:
            Told()
            gc.collect()
            return super().count(*of)

    def write() -> None:
        pipe.sink.write(Line(b"x" * MOST + b"\n"))

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(5.0)
    assert not writing.is_alive()
    assert b"from a destructor" in pipe.read_until(b"destructor")


def test_text_goes_out_as_it_is_and_what_is_no_utf_8_is_replaced(pipe: Pipe) -> None:
    text = TextSink(pipe.sink)
    assert text.write("grün \ud800\n") == 7
    assert pipe.read_until(b"\n") == ["grün ?".encode()]


def test_a_file_begun_anew_does_not_begin_with_the_end_of_a_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    sink = Sink(path)
    really, room = os.write, [10]

    def write(descriptor: int, text: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "full")
        return really(descriptor, text[: room.pop()])

    monkeypatch.setattr(os, "write", write)
    sink.write(numbered(1))
    until(lambda: sink._size == 0)
    monkeypatch.undo()
    path.rename(moved)
    sink.reopen()
    sink.write(numbered(2))
    sink.close()
    assert path.read_bytes().startswith(numbered(2))
    assert moved.read_bytes() == numbered(1)[:10]


def test_a_process_that_forks_writes_at_once_and_tells_of_its_losses(pipe: Pipe) -> None:
    pipe.sink.at_once = True
    for number in range(2000):
        pipe.sink.write(numbered(number))
    assert pipe.lost.lines > 1000
    pipe.read()
    pipe.sink.write(numbered(0))
    lines = pipe.read_until(b"log_lines_dropped")
    assert dropped(lines) == pipe.lost.lines
    assert len(lines) == 2000 - pipe.lost.lines + 2
    assert not pipe.sink._started
