"""A service of several processes, and who is in it."""

import json
import os
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import MultiProcessCollector

from api.parts import eventually
from api.stack import Service


def alive(pid: int) -> bool:
    """Whether the process runs: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """The process's children, zombies too."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (child, *descendants(child))]


class House:
    """What `serve --workers N` runs, as its log and the system tell it."""

    def __init__(self, service: Service, temporary: Path) -> None:
        self.service = service
        self.parent = service.process.popen.pid
        self._temporary = temporary

    def told(self, event: str) -> list[dict[str, Any]]:
        """The log's whole lines of an event."""
        whole = self.service.process.text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if f'"event":"{event}"' in line]

    def workers(self) -> dict[int, int]:
        """The pid of each worker that runs, by its place."""
        started = {line["place"]: line["pid"] for line in self.told("worker_started")}
        return {place: pid for place, pid in started.items() if alive(pid)}

    def kill(self, pid: int, number: int, *, wait: bool = True) -> None:
        """Send a worker a signal, and wait until another is in its place and takes connections."""
        place = next(place for place, each in self.workers().items() if each == pid)
        os.kill(pid, number)
        if wait:
            self.next_after(place, pid)

    def next_after(self, place: int, worker: int) -> int:
        """Wait for whom the parent starts in the place of one that died; return its pid."""
        eventually(lambda: self.workers().get(place, worker) != worker, within=40)
        return self.workers()[place]

    def counted_by(self, place: int, name: str) -> float:
        """What the worker in one place counted, over all labels."""
        return self._read(f"counter_{place}.db", name)

    def under_way_at(self, place: int) -> float:
        return self._read(f"gauge_livesum_{place}.db", "chatkit_mint_requests_in_flight")

    def _read(self, file: str, name: str) -> float:
        families = MultiProcessCollector.merge([str(self.family / file)])  # type: ignore[no-untyped-call]
        return sum(float(sample.value) for each in families for sample in each.samples if sample.name == name)

    @property
    def family(self) -> Path:
        """Where the processes count."""
        return next(self._temporary.glob("chatkit-mint-metrics-*"))
