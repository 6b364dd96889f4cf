"""Lines of several processes: the one that forks writes its own itself, and those of the others stay whole."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.observe.sink import Sink
from support.processes import ROOT

F_SETPIPE_SZ = 1031
LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_line_is_there_when_the_call_returns_and_no_thread_has_begun(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink, before = Sink(writing), threading.active_count()
    sink.at_once = True
    sink.write(LINE)
    assert os.read(reading, 4096) == LINE
    assert threading.active_count() == before


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink, dropped = Sink(writing), 0

    def count(lines: int) -> None:
        nonlocal dropped
        dropped += lines

    sink.on_drop, sink.at_once = count, True
    began = time.monotonic()
    for _ in range(200):
        sink.write(LINE)
    assert time.monotonic() - began < 2
    assert dropped > 100
    assert os.read(reading, 65_536) == LINE * (200 - dropped)


def test_lines_of_two_processes_do_not_mix_in_a_pipe_that_is_full(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    script = """
import sys
from service.observe.sink import Sink
sink = Sink(1)
for number in range(2000):
    sink.write(sys.argv[1].encode() * (50 + number % 200) + b"\\n")
sink.close(30)
"""
    with ExitStack() as stack:
        for letter in "ab":
            command = [sys.executable, "-c", script, letter]
            stack.enter_context(subprocess.Popen(command, stdout=writing, cwd=ROOT))
        time.sleep(1.0)  # by then both wait for room
        with os.fdopen(os.dup(reading), "rb") as stream:
            lines = [stream.readline() for _ in range(4000)]
    assert all(len(set(line)) == 2 for line in lines)
