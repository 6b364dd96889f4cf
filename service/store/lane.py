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

_pack: Any = pack_command  # its types say that a command has one word


class Lane:
    """One connection of the client's pool, one caller at a time. After an error it connects anew."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None

    async def execute(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """Return the answer of each command, its error in its place; raise where the connection is lost.

        Tried once more on a lost connection: one that lay idle may have died unnoticed.
        """
        packed = b"".join([_pack(command) for command in commands])
        try:
            return await self._exchange(packed, len(commands))
        except (RedisConnectionError, OSError):
            return await self._exchange(packed, len(commands))

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        connection = self._connection
        try:
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(packed, check_health=False)
            answers = [await connection._parser.read_response(disable_decoding=True) for _ in range(count)]  # noqa: SLF001  (read_response itself costs ten times as much)
        except BaseException:
            # Also when we are out of time: the next caller must not read answers that are not its own.
            await connection.disconnect(nowait=True)
            raise
        if any(isinstance(answer, Exception) and is_replicas_answer(answer) for answer in answers):
            await connection.disconnect(nowait=True)
            raise NotPrimary("the server is a replica")
        return answers
