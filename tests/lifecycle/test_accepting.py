"""Connections are taken as long as there is room for them, and again when there is."""

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from api.parts import eventually
from lifecycle.conftest import Start

pytestmark = pytest.mark.process
REQUEST = b"GET /nothing HTTP/1.1\r\nhost: service\r\nconnection: close\r\n\r\n"


def test_without_file_descriptors_left_it_waits_and_goes_on(start: Start) -> None:
    house = start()
    host, port = house.service.url.removeprefix("http://").split(":")
    used = max(int(each) for each in os.listdir(f"/proc/{house.parent}/fd"))  # noqa: PTH208  (names, not paths)
    _, most = resource.prlimit(house.parent, resource.RLIMIT_NOFILE)
    resource.prlimit(house.parent, resource.RLIMIT_NOFILE, (used + 3, most))
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(used + 20)
        ]
        eventually(lambda: house.told("not_accepting"))
        before = _cpu(house.parent)
        resource.prlimit(house.parent, resource.RLIMIT_NOFILE, (most, most))
        for connection in connections:
            connection.sendall(REQUEST)
        answers = [connection.recv(64).partition(b"\r\n")[0] for connection in connections]
    assert set(answers) == {b"HTTP/1.1 404 Not Found"}
    assert len(house.told("not_accepting")) <= 2, "it does not ask again and again"
    assert _cpu(house.parent) - before < 0.8


def _cpu(pid: int) -> float:
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
