"""A connection kept for scripts: many commands out in one write, their answers read in order.

redis-py makes, secures and names the connection, and reads its answers; what is left out are the layers between its
`execute_command` and the socket, which cost several times what the commands do. docs/decisions/0014 has the figures.
"""

from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.store.connections import NotPrimary, is_replicas_answer

packed: Any = pack_command  # its types say that a command has one word
"""Returns a command, a tuple of words, as it is sent; raises `TypeError` and `UnicodeError`."""


class Lane:
    """One connection of the client's pool, one caller at a time. After an error it connects anew."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None

    async def execute(self, commands: Sequence[bytes], answers: list[Any]) -> list[Any]:
        """Put the answer of each packed command into *answers*, its error in its place, and return them.

        Raises where the connection is lost. What was not answered is tried once more: a connection that lay idle may
        have died unnoticed.
        """
        tried = False
        while True:
            try:
                connection = self._connection = self._connection or await self._pool.get_connection()
                if connection.is_connected and _unread(connection):
                    # An answer to nothing: every later one would be taken for somebody else's.
                    await connection.disconnect(nowait=True)
                if not connection.is_connected:
                    await connection.connect()  # sending would connect too, but to the primary of before
                await connection.send_packed_command(b"".join(commands[len(answers) :]), check_health=False)
                parser = connection._parser  # noqa: SLF001  (its read_response costs ten times as much)
                while len(answers) < len(commands):
                    answer = await parser.read_response(disable_decoding=True)
                    if isinstance(answer, Exception):
                        _check(answer)
                    answers.append(answer)
            except BaseException as error:
                # Also when we are out of time: the next caller must not read answers that are not its own.
                if self._connection is not None:
                    await self._connection.disconnect(nowait=True)
                if tried or not isinstance(error, RedisConnectionError | OSError):
                    raise
                tried = True
            else:
                return answers


def _unread(connection: Any) -> bool:
    parser = connection._parser  # noqa: SLF001  (its can_read waits for a turn of the loop)
    return bool(parser._reader.has_data() or parser._stream._buffer)  # noqa: SLF001


def _check(error: Exception) -> None:
    if is_replicas_answer(error):
        raise NotPrimary("the server is a replica")
