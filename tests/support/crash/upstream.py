"""`python upstream.py REDIS_URL`: the session authority in a process that no kill of the service touches.

Each call is slow by chance, before the session exists and after, so that kills land inside a create on either side.
"""

import asyncio
import random
import sys
from pathlib import Path
from typing import Any, Final

import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

sys.path.insert(0, str(Path(__file__).parents[3]))

from service.serve import listen, serve
from service.store.connect import connect
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.sessions import Authority

BEFORE: Final = (0.002, 0.010)
AFTER: Final = (0.003, 0.020)
"""Seconds that a call waits until it takes effect, and that its answer waits then: 5 to 30 ms in all."""


class Slow:
    """ASGI middleware: every call takes its time."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on late, and its answer later."""
        await _chance(BEFORE)

        async def late(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _chance(AFTER)
            await send(message)

        await self.app(scope, receive, late)


async def _chance(seconds: tuple[float, float]) -> None:
    await asyncio.sleep(random.uniform(*seconds))  # noqa: S311  (spreads delays, guards nothing)


async def run(redis_url: str) -> None:
    """Serve until SIGTERM; print the base URL."""
    redis = connect(redis_url, timeout=10.0, connections=500)
    app = create_authority_app(Authority(redis))
    app.add_middleware(Slow)
    listener = listen(app, "127.0.0.1", 0, option="nothing")

    def ready() -> None:
        sys.stdout.write(f"upstream is ready: {listener.url}/v1\n")
        sys.stdout.flush()

    def nothing(*_: Any) -> None:
        """Have nothing to drain and nothing to read again."""

    try:
        await serve([listener], grace=5.0, ready=ready, draining=nothing, reload=nothing)
    finally:
        await redis.aclose()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1]))
