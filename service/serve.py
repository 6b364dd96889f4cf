"""Run ASGI apps on sockets until a signal: the last app listed is the last to stop."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from service.observe.logs import where

log = structlog.get_logger()

IPV4 = 4
GC_THRESHOLD = 50_000
"""Objects made and not gone again before the youngest are looked at; Python's 700 is a look every other request."""
KEEP_ALIVE = 75
"""Seconds: longer than load balancers keep an idle connection (60 as a rule); else they send into a closing one."""


class PortTaken(OSError):  # noqa: N818
    """Somebody else listens there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app and the socket that it answers on."""

    app: Starlette
    socket: socket.socket
    lifespan: bool
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-For` says where a request comes from."""

    @property
    def url(self) -> str:
        """Where it answers, with the port that the system chose where 0 was asked for."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(
    app: Starlette,
    host: str,
    port: int,
    *,
    option: str,
    lifespan: bool = False,
    trusted_proxies: Sequence[str] = (),
) -> Listener:
    """Bind; raise `PortTaken`, whose text names the *option* that chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(2048)  # from now on callers wait instead of being refused: a start-up may call its neighbour
    except OSError as error:
        sock.close()
        raise PortTaken(f"can't listen on {host}:{port}: {error.strerror}; choose another with {option}") from None
    return Listener(app, sock, lifespan, tuple(trusted_proxies))


async def serve(
    listeners: Sequence[Listener],
    *,
    grace: float,
    ready: Callable[[], None],
    draining: Callable[[], None],
    reload: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; then stop one listener after the other, in the order given.

    *grace* is how long requests in flight may take to finish, in seconds; *ready* is called once all answer,
    *draining* as soon as a signal asks for the end, *reload* on every SIGHUP. Raises `RuntimeError` where an app's
    start-up fails, or a listener ends unasked.
    """
    servers = [_Server(_config(listener, grace)) for listener in listeners]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    running = [
        asyncio.create_task(server.serve(sockets=[listener.socket]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        await _all_started(servers, running)
        _settle_memory()
        ready()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        draining()
        log.info("stopping", grace=grace)
        if not stopping.done():
            stopping.cancel()
            raise RuntimeError("a listener ended unasked; the log says why")
    finally:
        for server, task in zip(servers, running, strict=True):
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)
        log.info("stopped")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _settle_memory() -> None:
    """Keep what was loaded at start out of garbage collection, and collect less often: requests leave few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def _tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what no task waited for: by its place alone, since asyncio's own text quotes the error's message."""
    error = context.get("exception")
    log.error("unhandled", error=where(error) if isinstance(error, BaseException) else str(context.get("message")))


async def _all_started(servers: Sequence[uvicorn.Server], running: Sequence[asyncio.Task[Any]]) -> None:
    while not all(server.started for server in servers):
        if ended := [task for task in running if task.done()]:
            cause = ended[0].exception()
            raise RuntimeError("the service did not start; the log says why") from cause
        await asyncio.sleep(0.01)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; raise `RuntimeError` where the server would end the process from inside a task."""
        try:
            await super().startup(sockets)
        except SystemExit:
            raise RuntimeError("the service did not start; the log says why") from None

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
        proxy_headers=bool(listener.trusted_proxies),
        forwarded_allow_ips=[spelling for each in listener.trusted_proxies for spelling in _spellings(each)],
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, int(grace)),
    )


def _spellings(network: str) -> list[str]:
    """Return a network, and an IPv4 one also as a listener for both kinds of address sees it (RFC 4291 §2.5.5.2)."""
    parsed = ip_network(network)
    mapped = [f"::ffff:{parsed.network_address}/{96 + parsed.prefixlen}"] if parsed.version == IPV4 else []
    return [network, *mapped]
