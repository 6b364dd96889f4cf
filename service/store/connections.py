"""Connections to one Redis server that leave it when it is no longer the primary."""

from typing import Any, Final

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

OLD_STYLE: Final = "-READONLY "
"""How Redis 6.2 tells of it when a script wrote: in the middle of another error's text."""


class NotPrimary(RedisConnectionError):  # noqa: N818
    """The server has become a replica, or was one all along."""


def is_replicas_answer(error: Exception) -> bool:
    """Return whether only a replica answers so."""
    return isinstance(error, (ReadOnlyError, MasterDownError)) or (
        isinstance(error, ResponseError) and OLD_STYLE in str(error)
    )


class Faithful:
    """Mixed into a connection: closes it when its server turns out to be a replica, so that the next one looks anew.

    And when it was reset while nobody used it: uvloop tells of that by an error of its own, which redis-py takes for a
    defect and doesn't try again.

    Without it a pool would stay with a demoted primary for ever: it answers, if only `-READONLY` or `-MASTERDOWN`.
    Nothing was written, so the one retry on a lost connection is safe, and goes to whoever is the primary now.
    """

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """See redis-py; raise its `ConnectionError` also where uvloop has closed the transport."""
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError("the connection was closed while it lay idle") from error

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """See redis-py; raise `NotPrimary` where the server is a replica."""
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except ResponseError as error:
            if is_replicas_answer(error):
                await self.disconnect(nowait=True)  # type: ignore[attr-defined]
                raise NotPrimary("the server is a replica") from error
            raise


class TcpConnection(Faithful, Connection):
    """Over TCP."""


class TlsConnection(Faithful, SSLConnection):
    """Over TLS."""


class SocketConnection(Faithful, UnixDomainSocketConnection):
    """Over a Unix socket."""


OURS: Final[dict[Any, type[Connection | UnixDomainSocketConnection]]] = {
    None: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: SocketConnection,
}
"""By the class that redis-py reads in a URL."""


def bounds(timeout: float) -> dict[str, Any]:
    """Return the options of every connection; *timeout* is in seconds, for connecting. `RedisGuard` bounds the rest.

    No `socket_timeout`: with one, redis-py 8.1 sends by way of `asyncio.wait_for`, which up to Python 3.11 can swallow
    a cancellation, and with it the deadline around the call.

    One retry, and only on a lost connection: a pooled one may have died unnoticed. After a timeout nobody knows
    what was done, so the caller is told instead.

    No maintenance notifications: they are another round trip to connect, and while they may come, a pool takes a
    connection with an unread answer for a good one.
    """
    return {
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "health_check_interval": 0,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
