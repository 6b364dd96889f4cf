"""uvicorn's server, with its comings and goings in our own hands.

uvicorn accepts all that waits at once, which gives a burst of connections to one process of several, and at its end
closes what is idle, on which a request may be on its way.
"""

import asyncio
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
import uvicorn

log = structlog.get_logger()

LINGER: Final = 1.0
"""Seconds that idle connections are kept at the end, for what is on its way on one of them."""
LOOK: Final = 0.02
"""Seconds between looks at who is still idle."""
PAUSE: Final = 1.0
"""Seconds without accepting where the process has no file descriptor left."""
GOODBYE: Final = (b"connection", b"close")


class Server(uvicorn.Server):
    """Serves on one listening socket; *at_once* is how many connections it takes before it looks at the others."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, *, at_once: int) -> None:
        super().__init__(config)
        self._listening = listening
        self._at_once = at_once
        self._greeting: set[asyncio.Task[None]] = set()
        self._parting = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  (ours is at hand)
        """Start; raise `RuntimeError` where the server would end the process from inside a task."""
        try:
            await super().startup(sockets=[])
        except SystemExit:
            raise RuntimeError("the service did not start; the log says why") from None
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def part(self) -> None:
        """Ask every caller, with the next answer, to come back on another connection: this process ends soon."""
        if self._parting:
            return
        self._parting = True
        self.config.encoded_headers.append(GOODBYE)  # uvicorn makes its default headers anew once a second
        self.server_state.default_headers = [*self.server_state.default_headers, GOODBYE]
        for connection in self._connections(busy=True):
            connection.shutdown()  # busy, so it stays until its answer is out

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: nobody whose connection was made is sent away without an answer."""
        self.part()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        # Closing resets who waits in the queue, and they may have sent their requests already.
        while self._take():
            pass
        self._listening.close()
        if self._greeting:
            await asyncio.wait(self._greeting)
        until = loop.time() + LINGER
        while loop.time() < until and any(self._connections(busy=False)):  # noqa: ASYNC110  (connections tell nobody)
            await asyncio.sleep(LOOK)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: several servers share a process, and `serve` stops them in order."""
        yield

    def _accept(self) -> None:
        for _ in range(self._at_once):
            if not self._take():
                return

    def _take(self) -> bool:
        """Accept one connection; return whether there was one."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            self._pause(error)
            return False
        task = asyncio.create_task(self._greet(connection))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)
        return True

    def _pause(self, error: OSError) -> None:
        """Let the loop do other things: the socket stays readable, and it would ask again and again."""
        log.error("not_accepting", reason=error.strerror, pause=PAUSE)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        if not self.should_exit and self._listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    async def _greet(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # gone before it was greeted

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _connections(self, *, busy: bool) -> Iterator[Any]:
        """Yield the connections on which an answer is under way, or those on which none is."""
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if busy == (cycle is not None and not cycle.response_complete):
                yield connection
