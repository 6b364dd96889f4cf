"""A connection kept for scripts: many commands out in one write, their answers read as they come in.

redis-py makes, secures and names the connection. What comes in is then read here and not by its streams: no task waits
for an answer, and no timer runs for each read. docs/decisions/0014 has the figures.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from service.store.connections import NotPrimary, is_replicas_answer

Done = Callable[[list[Any], Exception | None], object]
"""Told the answer of each command, its error in its place; or why there are none."""

_MORE: Final = object()
"""What the parser says while an answer isn't whole."""


class Lane:
    """One connection of the client's pool, with one batch of commands under way; made anew whenever it is lost.

    A batch whose connection is lost is sent once more, on the next one: one that lay idle may have died unnoticed.
    """

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        self._packed = b""
        self._count = 0
        self._answers: list[Any] = []
        self._done: Done | None = None
        self._repeated = False

    def send(self, packed: bytes, count: int, done: Done) -> None:
        """Send so many commands, as soon as there is a connection. The batch before must be done, or dropped."""
        self._packed, self._count, self._done = packed, count, done
        self._answers, self._repeated = [], False
        self._go()

    def drop(self) -> None:
        """Forget the batch, and leave the connection: the next caller must not read answers that are not its own."""
        self._done = None
        if self._opening is not None:
            self._opening.cancel()  # nothing else bounds it: what it asks may be a Sentinel that says nothing
        self._leave()

    def _go(self) -> None:
        if self._wire is not None and self._wire.transport.is_closing():
            self._leave()  # we are told of it in a moment
        if self._wire is not None:
            self._wire.transport.write(self._packed)
        elif self._opening is None or self._opening.cancelling():
            self._opening = asyncio.get_running_loop().create_task(self._open(self._opening))

    async def _open(self, given_up: asyncio.Task[None] | None) -> None:
        if given_up is not None:
            await asyncio.wait([given_up])  # both use one connection
        made: _Wire | Exception
        try:
            if self._connection is None:
                self._connection = await self._pool.get_connection()
            else:
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
            made = _Wire(self._connection, self._take, self._lost)
        except Exception as error:  # noqa: BLE001  (whatever it is: somebody waits to be told)
            made = error
        if asyncio.current_task() is not self._opening:
            return  # given up too late to notice: the next one begins anew
        self._opening = None
        if isinstance(made, Exception):
            self._fail(made)
            return
        self._wire = made
        if self._done is not None:
            self._go()

    def _take(self, wire: "_Wire", answer: Any) -> None:
        if wire is not self._wire:
            return  # of a batch that was dropped
        if self._done is None:
            raise RedisConnectionError("an answer that nobody asked for")
        if isinstance(answer, Exception) and is_replicas_answer(answer):
            raise NotPrimary("the server is a replica")
        self._answers.append(answer)
        if len(self._answers) == self._count:
            done, self._done = self._done, None
            done(self._answers, None)

    def _lost(self, wire: "_Wire", error: Exception) -> None:
        if wire is self._wire:  # else it was left before
            self._leave()
            self._fail(error)

    def _leave(self) -> None:
        if self._wire is not None:
            self._wire.transport.abort()
            self._wire = None

    def _fail(self, error: Exception) -> None:
        """Send the batch once more, or tell that it can't be done."""
        if self._done is None:
            return
        if not self._repeated:
            self._answers, self._repeated = [], True
            self._go()
        else:
            done, self._done = self._done, None
            done([], error)


class _Wire(asyncio.Protocol):
    """Reads what comes in on a connection that redis-py has made."""

    def __init__(
        self, connection: Any, take: Callable[["_Wire", Any], None], lost: Callable[["_Wire", Exception], None]
    ) -> None:
        self._take = take
        self._lost = lost
        self._parser: Any = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001  (the types that redis-py has for them)
            notEnoughData=_MORE,
        )
        self.transport: Any = connection._writer.transport  # noqa: SLF001  (it has no other way)
        self._streams: Any = self.transport.get_protocol()
        self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Take what is whole."""
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets(False)) is not _MORE:
                if not isinstance(answer, hiredis.PushNotification):
                    self._take(self, answer)
        except RedisError as error:
            self._lost(self, error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of it, redis-py too: its `disconnect` waits for that."""
        self._streams.connection_lost(exc)
        self._lost(self, exc or RedisConnectionError("the connection was closed"))
