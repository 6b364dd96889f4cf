"""The private redis-server of a service of several processes: a child looks after it, since the parent has no loop."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson
import uvloop

from service.store.private import NoRedis, private_redis
from service.workers.fork import Child, fork


@contextmanager
def kept_redis(directory: Path, *, option: str, closing: Iterable[socket.socket] = ()) -> Iterator[tuple[str, Child]]:
    """Run a redis-server as `private_redis` does; give its URL, and who looks after it.

    It ends when this process and every process that it forks meanwhile are gone, whatever ended them: each of them
    holds one end of a pipe, and needs Redis until its own end. *closing* are sockets that are not its business: one
    that listens would take connections for as long as it is held. Raises `NoRedis`.
    """
    watched, held = os.pipe()
    child = fork(partial(_keep, directory, option, watched, held), closing=closing)
    os.close(watched)
    try:
        with child.channel.makefile("rb") as lines:
            told = orjson.loads(lines.readline() or b'{"error": "the private Redis did not start; the log says why"}')
        if "error" in told:
            raise NoRedis(told["error"])
        yield told["url"], child
    finally:
        os.close(held)
        child.channel.close()
        os.waitpid(child.pid, 0)


def _keep(directory: Path, option: str, watched: int, held: int, parent: socket.socket) -> int:
    os.close(held)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _deaf)  # it outlives the last request, also where a signal is sent to all
    try:
        uvloop.run(_kept(directory, option, watched, parent))
    except NoRedis as error:
        parent.sendall(orjson.dumps({"error": str(error)}) + b"\n")
        return 1
    return 0


async def _kept(directory: Path, option: str, watched: int, parent: socket.socket) -> None:
    alone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watched, alone.set)
    async with private_redis(directory, option=option) as url:
        parent.sendall(orjson.dumps({"url": url}) + b"\n")
        await alone.wait()
    loop.remove_reader(watched)


def _deaf(_number: int, _frame: object) -> None:
    """Hear nothing. Not SIG_IGN, which redis-server would inherit."""
