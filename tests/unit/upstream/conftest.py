"""The authority, with a clock that only a test turns."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Literal

import pytest
import uvicorn
from redis.asyncio import Redis
from starlette.types import ASGIApp

from service.upstream.authority.sessions import Authority


@pytest.fixture
def clock() -> SimpleNamespace:
    """Hands are moved by setting `now`, in Unix seconds."""
    return SimpleNamespace(now=1_800_000_000.75)


@pytest.fixture
def authority(redis: Redis, clock: SimpleNamespace) -> Authority:
    return Authority(redis, clock=lambda: clock.now)


class AnnouncedServer(uvicorn.Server):
    """A server whose `ready` is set once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@pytest.fixture
def serving() -> Callable[..., AbstractAsyncContextManager[int]]:
    """Serve an app under uvicorn on a free port of the loopback: that port."""

    @asynccontextmanager
    async def served(app: ASGIApp, http: Literal["auto", "h11", "httptools"] = "auto") -> AsyncIterator[int]:
        config = uvicorn.Config(app, lifespan="off", log_config=None, http=http)
        server = AnnouncedServer(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await server.ready.wait()
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True
                await running

    return served
