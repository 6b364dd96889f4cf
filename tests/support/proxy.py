"""A load balancer in a few lines: connections go to a replica that says it is ready, and stay there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

import httpx2

LOOK = 0.05
"""Seconds between looks at `/readyz`."""


@dataclass
class Proxy:
    """*replicas* are the ports of each, the public and the operations one."""

    replicas: Sequence[tuple[int, int]]
    ready: set[int] = field(default_factory=set)
    port: int = 0
    _turn: "count[int]" = field(default_factory=count)
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        looking = asyncio.create_task(self._look())
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            looking.cancel()
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(looking, *self._carrying, return_exceptions=True)

    async def until(self, port: int, *, ready: bool, within: float = 30.0) -> None:
        async with asyncio.timeout(within):
            while (port in self.ready) != ready:  # noqa: ASYNC110  (what is waited for is outside of our hands)
                await asyncio.sleep(LOOK / 5)

    async def _look(self) -> None:
        async with httpx2.AsyncClient(timeout=1.0, trust_env=False) as http:
            while True:
                for public, operations in self.replicas:
                    status = 0
                    with suppress(httpx2.HTTPError):
                        status = (await http.get(f"http://127.0.0.1:{operations}/readyz")).status_code
                    (self.ready.add if status == httpx2.codes.OK else self.ready.discard)(public)
                await asyncio.sleep(LOOK)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        ready = sorted(self.ready)
        with suppress(ConnectionError, IndexError):
            there, back = await asyncio.open_connection("127.0.0.1", ready[next(self._turn) % len(ready)])
            await asyncio.gather(_carry(reader, back), _carry(there, writer))
        writer.close()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes, and the end of it."""
    try:
        while chunk := await source.read(65_536):
            sink.write(chunk)
            await sink.drain()
    finally:
        sink.close()
