"""uvicorn's connection, with the head of an answer and its body in one write.

uvicorn writes one after the other, and each write is a packet: a system call more here, and whoever waits wakes twice.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD: Final = b"HTTP/1.1 "
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""No head of an answer: who asked for it sends the body only then (RFC 9110 §10.1.1)."""


class Connection(HttpToolsProtocol):
    """Answers one caller's requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        self._joined = _Joined(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self._joined.flush()  # a head that no body came after: HEAD, 304
        super().on_response_complete()


class _Joined:
    """A transport that keeps a head until the write that follows it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, part: bytes) -> None:
        if self._head:
            part, self._head = self._head + part, b""
        elif part.startswith(HEAD) and part != CONTINUE:
            self._head = part
            return
        self._transport.write(part)

    def flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()
