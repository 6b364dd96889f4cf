"""Run ASGI apps on sockets until a signal: the last app listed is the last to stop."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette


class PortTaken(OSError):  # noqa: N818
    """Somebody else listens there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app and the socket that it answers on. *server_settings* go to uvicorn as they are."""

    app: Starlette
    socket: socket.socket
    lifespan: bool

    @property
    def url(self) -> str:
        """Where it answers, with the port that the system chose where 0 was asked for."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(app: Starlette, host: str, port: int, *, option: str, lifespan: bool = False) -> Listener:
    """Bind; raise `PortTaken`, whose text names the *option* that chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)  # from now on callers wait instead of being refused: a start-up may call its neighbour
    except OSError as error:
        sock.close()
        raise PortTaken(f"can't listen on {host}:{port}: {error.strerror}; choose another with {option}") from None
    return Listener(app, sock, lifespan)


async def serve(
    listeners: Sequence[Listener], *, grace: float, ready: Callable[[], Awaitable[None] | None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; then stop one listener after the other, in the order given.

    *grace* is how long requests in flight may take to finish, in seconds; *ready* is called once all answer.
    Raises `RuntimeError` where an app's start-up fails.
    """
    servers = [_Server(_config(listener, grace)) for listener in listeners]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = [
        asyncio.create_task(server.serve(sockets=[listener.socket]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        await _all_started(servers, running)
        if ready is not None and (waiting := ready()) is not None:
            await waiting
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    finally:
        for server, task in zip(servers, running, strict=True):
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _all_started(servers: Sequence[uvicorn.Server], running: Sequence[asyncio.Task[Any]]) -> None:
    while not all(server.started for server in servers):
        if ended := [task for task in running if task.done()]:
            cause = ended[0].exception()
            raise RuntimeError("the service did not start; the log says why") from cause
        await asyncio.sleep(0.01)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: several servers share a process, and `serve` stops them in order."""
        yield


def _config(listener: Listener, grace: float) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        lifespan="on" if listener.lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=max(1, int(grace)),
    )
