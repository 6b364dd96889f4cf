"""Metrics of several processes that are scraped as one: prometheus-client's multiprocess mode, with places for names.

The library names files by process id, and a process that is replaced leaves its files behind. Here a member's name is
its place: who is started in the place of one that died goes on counting where that one stopped, so no counter goes
back, and there are never more files than places.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

COUNTED: Final = ("counter", "histogram")
RESERVED: Final = 2**16
"""Bytes of a file that nobody has written to."""
LIVE: Final = ("gauge_livesum", "gauge_livemax")
"""Gauges of what is under way, which ends with the process."""


def make_place(directory: Path, member: str) -> None:
    """Make a member's files, or of one that died keep what it counted and forget what it had under way.

    Each appears whole: the library can't read a file that has been opened and not been filled yet. Raises `OSError`.
    """
    for kind in (*COUNTED, *LIVE):
        path = directory / f"{kind}_{member}.db"
        if kind in LIVE or not path.exists():
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            _reserve(fresh)
            MmapedDict(str(fresh)).close()  # type: ignore[no-untyped-call]
            fresh.replace(path)


def _reserve(path: Path) -> None:
    """Make a file whose first part is there: on a full disk this fails, where a write to the map would end us."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, RESERVED)
        else:
            file.write(bytes(RESERVED))


def join(directory: Path, member: str, environ: MutableMapping[str, str]) -> None:
    """Let every metric that this process makes from now on be counted in *directory*.

    *environ* must be the process's own: the library looks nowhere else for the directory.
    """
    environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: member)  # type: ignore[no-untyped-call]
