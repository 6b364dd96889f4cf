"""`chatkit-mint serve`, as often as there are replicas, to be killed and started again."""

import asyncio
import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.processes import Process, clean_environ

SECRET: Final = re.compile(r"ek_[\w-]{20,}|sk-crash|eyJ[\w-]{20,}\.")
"""Client secrets, the API key and tokens: in no log."""


class Replica:
    """One place for a process. `url` is where the present one answers; None while there is none."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self._home = home
        self._environ = clean_environ(**environ)
        self._process: Process | None = None
        self.url: str | None = None
        self.starts = 0
        self.errors: list[str] = []
        """Lines of the log that are errors, or tell a secret, or are none of ours."""

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        self.starts += 1
        self._home.mkdir(parents=True, exist_ok=True)
        self._process = Process("serve", output=self._home / f"{self.starts}.log", environ=self._environ)
        told = json.loads((await asyncio.to_thread(self._process.wait_for, r'.*"event":"listening".*\n'))[0])
        self.url = told["public"]

    async def kill(self) -> None:
        """Kill the process without a warning."""
        assert self._process is not None
        assert self._process.popen.poll() is None, f"the service ended by itself:\n{self._process.text()}"
        self._process.popen.kill()
        self.url = None
        assert await asyncio.to_thread(self._process.popen.wait) == -signal.SIGKILL
        self._read_log()

    def stop(self) -> None:
        """End the process as an operator does; it may be dead already."""
        if self._process is None:
            return
        self.url = None
        alive = self._process.popen.poll() is None
        code = self._process.stop()
        if alive and code != 0:
            self.errors.append(f"exit code {code} after SIGTERM")
        self._read_log()

    def _read_log(self) -> None:
        """Keep what is wrong in the log, and drop the rest: a long run writes hundreds of megabytes."""
        assert self._process is not None
        if not self._process.output.exists():
            return
        lines = self._process.text().split("\n")
        for line in lines[:-1]:  # what follows the last line feed was cut off by the kill
            if SECRET.search(line):
                self.errors.append(f"a secret in the log: {SECRET.sub('…', line)[:300]}")
            elif not line.startswith("{") or '"level":"error"' in line:
                self.errors.append(line[:300])
        self._process.output.unlink()


class Replicas:
    """All of them. *count* processes with the same environment, as they are deployed."""

    def __init__(self, home: Path, environ: Mapping[str, str], *, count: int) -> None:
        self.all = [Replica(home / f"replica-{number}", environ) for number in range(count)]
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Start all."""
        await asyncio.gather(*(replica.start() for replica in self.all))
        self.changed.set()

    async def restart(self, replica: Replica) -> None:
        """Kill one and start it again at once."""
        await replica.kill()
        if not any(each.url for each in self.all):
            self.changed.clear()
        await replica.start()
        self.changed.set()

    async def urls(self) -> list[str]:
        """Return where replicas answer now; wait until one does."""
        while not (found := [each.url for each in self.all if each.url]):
            self.changed.clear()
            await self.changed.wait()
        return found

    def stop(self) -> None:
        """Stop all."""
        for replica in self.all:
            replica.stop()

    @property
    def errors(self) -> list[str]:
        """What any of them logged that it should not have."""
        return [error for replica in self.all for error in replica.errors]
