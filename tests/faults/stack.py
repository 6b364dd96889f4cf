"""The whole service in this process, over HTTP, in front of an upstream that plays a script."""

import asyncio
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.app import create_app
from service.settings import Settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNER = Signer()
IDENTITY = {"issuer": SIGNER.issuer, "audience": "app", "algorithms": ["ES256"], "jwks": SIGNER.jwks}
KEY = "sk-hunter2"
SHORT: dict[str, Any] = {
    "upstream_timeout": 2.0,
    "upstream_connect_timeout": 0.5,
    "upstream_read_timeout": 0.5,
    "upstream_pool_timeout": 0.1,
    "upstream_deadline": 4.0,
}
"""Seconds."""


@dataclass
class Stack:
    """The service under test. Tenants are told apart by their tokens' `org`."""

    app: Starlette
    http: httpx2.AsyncClient
    config: Path
    users: "count[int]" = field(default_factory=count)

    async def mint(self, tenant: str = "acme", subject: str | None = None) -> httpx2.Response:
        """Mint for a user of the tenant: for one who was never here, where none is named."""
        token = SIGNER.token(subject or f"user-{next(self.users)}", org=tenant)
        return await self.http.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}"})

    async def counted(self, name: str) -> Counter[str]:
        """What was counted of a metric, over all tenants, by its other labels: `create 200`."""
        return (await self.all_counted())[name]

    async def all_counted(self) -> defaultdict[str, Counter[str]]:
        """The same of every counter."""
        transport = httpx2.ASGITransport(app=self.app.state.operations)
        async with httpx2.AsyncClient(transport=transport, base_url="http://operations") as client:
            text = (await client.get("/metrics")).text
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    labels = [value for key, value in sorted(sample.labels.items()) if key != "tenant"]
                    name = sample.name.removeprefix("chatkit_mint_").removesuffix("_total")
                    found[name][" ".join(labels)] += int(sample.value)
        return found


def tenant(name: str, base_url: str, *, quota: dict[str, Any] | None = None, **upstream: Any) -> dict[str, Any]:
    """A tenant with its own upstream."""
    entry = {"kind": "openai", "base_url": base_url, "api_key": {"env": "KEY"}, **upstream}
    identity = {**IDENTITY, "match": f'claims.org == "{name}"'}
    return tenant_file(name, identity, upstream=entry, **({"quota": quota} if quota else {}))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def running(redis: Redis, config: Path, *tenants: dict[str, Any], **settings: Any) -> AsyncIterator[Stack]:
    """Serve these tenants on a free port of the loopback."""
    write_config(config, *tenants)
    chosen = Settings(config_dir=config, **{**SHORT, **settings})
    app = create_app(chosen, {"KEY": KEY}, redis=redis)
    server = _Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.ready.wait()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=10.0, trust_env=False) as http:
                yield Stack(app, http, config)
        finally:
            server.should_exit = True
            await serving
