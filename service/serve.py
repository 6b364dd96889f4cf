"""Run ASGI apps on sockets until a signal: the last app listed is the last to stop."""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from service.connection import Connection
from service.observe.logs import where
from service.server import Server

log = structlog.get_logger()

IPV4 = 4
GC_THRESHOLD = 50_000
"""Objects made and not gone again before the youngest are looked at; Python's 700 is a look every other request."""
KEEP_ALIVE = 75
"""Seconds: longer than load balancers keep an idle connection (60 as a rule); else they send into a closing one."""
BACKLOG = 2048
"""Connections that wait to be accepted, at most."""
TAKEN_AT_ONCE = 64
"""Connections accepted in a row by a process that is alone; one of several leaves the next to the others."""
END, RELOAD, READY = b"e", b"h", b"r"
"""What a parent tells its workers, and they it."""
PARENTS_WORD = 0.1
"""Seconds."""


OF_THE_PORT = frozenset({errno.EADDRINUSE, errno.EACCES})
"""What is wrong with a port: somebody listens there, or it is one below 1024 and we are not root."""
NO_HOST = "the host must be an address of this machine: 127.0.0.1, 0.0.0.0, ::"


class PortTaken(OSError):  # noqa: N818
    """We can't listen there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app and the socket that it answers on."""

    app: ASGIApp
    socket: socket.socket
    lifespan: bool
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-For` says where a request comes from."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return url_of(self.socket)


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
    return Listener(app, bind(host, port, option=option), lifespan, tuple(trusted_proxies))


def bind(host: str, port: int, *, option: str) -> socket.socket:
    """Return a listening socket: from now on callers wait instead of being refused. Raises `PortTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        sock.close()
        why = getattr(error, "strerror", None) or "not a host's name"
        what = f"choose another with {option}" if getattr(error, "errno", None) in OF_THE_PORT else NO_HOST
        raise PortTaken(f"can't listen on {host}:{port}: {why}; {what}") from None
    return sock


def url_of(sock: socket.socket) -> str:
    """Return where a socket answers, with the port that the system chose where 0 was asked for."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    listeners: Sequence[Listener],
    *,
    grace: float,
    ready: Callable[[], None],
    draining: Callable[[], None],
    reload: Callable[[], None],
    delay: float = 0.0,
    parent: socket.socket | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; then stop one listener after the other, in the order given.

    *grace* is how long requests in flight may take to finish, in seconds; *delay*, how long new connections are taken
    after the service was asked to end. *ready* is called once all answer, *draining* as soon as the end is asked for,
    *reload* on every SIGHUP. With a *parent*, that one says when the service ends; a signal ends this process alone.
    Raises `RuntimeError` where an app's start-up fails, or a listener ends unasked.
    """
    at_once = TAKEN_AT_ONCE if parent is None else 1
    servers = [Server(_config(listener, grace), listener.socket, at_once=at_once) for listener in listeners]
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell)
    orders = _Orders(draining, reload)
    with orders.heard(parent):
        running = [asyncio.create_task(server.serve()) for server in servers]
        try:
            await _all_started(servers, running)
            _settle_memory()
            ready()
            stopping = asyncio.create_task(orders.stop.wait())
            await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            for server in servers:
                server.part()
            log.info("stopping", grace=grace)
            if not stopping.done():
                stopping.cancel()
                draining()
                raise RuntimeError("a listener ended unasked; the log says why")
            await _delay(orders, delay)
        finally:
            for server, task in zip(servers, running, strict=True):
                server.should_exit = True
                await asyncio.gather(task, return_exceptions=True)
            log.info("stopped")


class _Orders:
    """What signals say, and the parent where there is one."""

    def __init__(self, draining: Callable[[], None], reload: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        """This process is to end."""
        self.everywhere = asyncio.Event()
        """So is the whole service."""
        self._draining = draining
        self._reload = reload

    @contextmanager
    def heard(self, parent: socket.socket | None) -> Iterator[None]:
        """Listen to them."""
        loop = asyncio.get_running_loop()
        if parent is None:
            handlers = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._reload}
        else:
            # The terminal sends Ctrl-C to all; the parent passes it on.
            handlers = {signal.SIGTERM: self.stop.set, signal.SIGHUP: self._reload}
            loop.add_reader(parent, self._hear, parent)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
            if parent is not None:
                loop.remove_reader(parent)

    def _end(self) -> None:
        if not self.everywhere.is_set():
            self.everywhere.set()
            self._draining()
        self.stop.set()

    def _hear(self, parent: socket.socket) -> None:
        try:
            told = parent.recv(64)
        except ConnectionResetError:  # it was killed before it heard us
            told = b""
        if RELOAD in told:
            self._reload()
        if not told or END in told:  # the end of the stream is the parent's own: nobody would end this process then
            asyncio.get_running_loop().remove_reader(parent)
            self._end()


async def _delay(orders: _Orders, delay: float) -> None:
    """Go on for so long where the whole service ends: load balancers must see it first."""
    with suppress(TimeoutError):
        # Some send SIGTERM to a whole group: then the parent's word comes a moment after the signal.
        async with asyncio.timeout(PARENTS_WORD):
            await orders.everywhere.wait()
    if orders.everywhere.is_set():
        await asyncio.sleep(delay)


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


def _config(listener: Listener, grace: float) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        http=Connection,
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
