"""uvicorn's connection, with the head of an answer and its body in one write.

uvicorn writes one after the other, and each write is a packet: a system call more here, and whoever waits wakes twice.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

INTERIM: Final = b"HTTP/1.1 1"
"""Begins what is no head of an answer: who waits for `100 Continue` sends the body only then (RFC 9110 §15.2)."""


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
    """A transport that keeps the head of each answer, its first part, until the write that follows it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, part: bytes) -> None:
        if self._head:
            part, self._head = self._head + part, b""
        elif not self._begun and not part.startswith(INTERIM):
            self._head, self._begun = part, True
            return
        self._transport.write(part)

    def flush(self) -> None:
        """End an answer: what comes next is another one's head."""
        if self._head:
            self.write(b"")
        self._begun = False

    def close(self) -> None:
        self.flush()
        self._transport.close()
