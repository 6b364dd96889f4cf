"""What these tests share: a port for an app, a session, the key that may verify it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn

from service.identity.service_keys import make_service_key
from service.upstream.authority.sessions import Authority

KEY, HASH = make_service_key()


@asynccontextmanager
async def on_a_port(app: Any, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """Serve *app* on loopback; its base URL."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan=lifespan, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), serving
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def issue(authority: Authority, user: str = "ada", **wishes: Any) -> dict[str, Any]:
    return await authority.create("acme", {"user": user, "workflow": {"id": "wf_support"}, **wishes})
