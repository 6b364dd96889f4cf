"""Where the contract is tried: our authority over HTTP and in process, and OpenAI's own endpoint where there is a key.

`CONFORMANCE_API_KEY` and `CONFORMANCE_WORKFLOW` (a published workflow of the key's project) point the suite at the real
endpoint, or at whatever `CONFORMANCE_BASE_URL` names. It makes some ten short sessions there and cancels them.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from authority.parts import on_a_port
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.sessions import Authority
from support.checkers import OPTIONAL

KEY, WORKFLOW, BASE = "CONFORMANCE_API_KEY", "CONFORMANCE_WORKFLOW", "CONFORMANCE_BASE_URL"
OURS = "sk-conformance"


@dataclass(frozen=True)
class Endpoint:
    """An issuer of sessions: OpenAI's Python package, a bare client for what the package won't send, a workflow."""

    sdk: AsyncOpenAI
    bare: httpx2.AsyncClient
    workflow: str
    api_key: str

    def wish(self, **wishes: Any) -> dict[str, Any]:
        """The smallest create body, and short: what is left over ends by itself within a minute."""
        life = {"anchor": "created_at", "seconds": 60}
        return {"user": "conformance:ada", "workflow": {"id": self.workflow}, "expires_after": life, **wishes}

    async def post(self, path: str, body: Any = None, **changes: str | None) -> httpx2.Response:
        """POST below the base URL with every header in order, but for *changes*; None leaves one out."""
        usual = {"authorization": f"Bearer {self.api_key}", "openai-beta": "chatkit_beta=v1"}
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        headers = {name: value for name, value in {**usual, **named}.items() if value is not None}
        return await self.bare.post(path, json=body, headers=headers)


@pytest.fixture(params=["over HTTP", "in process", "the real one"])
async def endpoint(request: pytest.FixtureRequest, redis: Redis) -> AsyncIterator[Endpoint]:
    """Each of them; the real one is skipped without a key."""
    if request.param == "the real one":
        if not (os.environ.get(KEY) and os.environ.get(WORKFLOW)):
            pytest.skip(f"{OPTIONAL}set {KEY} and {WORKFLOW} to hold OpenAI's own endpoint against the contract")
        base = os.environ.get(BASE, "https://api.openai.com/v1")
        async with _connected(base, httpx2.AsyncClient(timeout=30), os.environ[KEY], os.environ[WORKFLOW]) as it:
            yield it
        return
    app = create_authority_app(Authority(redis), keys={OURS: "proj_conformance"}, workflows=frozenset({"wf_1"}))
    if request.param == "in process":
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
        async with _connected("http://authority.test/v1", client, OURS, "wf_1") as it:
            yield it
        return
    async with on_a_port(app) as url, _connected(f"{url}/v1", httpx2.AsyncClient(), OURS, "wf_1") as it:
        yield it


@asynccontextmanager
async def _connected(base: str, client: httpx2.AsyncClient, key: str, workflow: str) -> AsyncIterator[Endpoint]:
    client.base_url = httpx2.URL(base)
    async with client, AsyncOpenAI(api_key=key, base_url=base, http_client=client, max_retries=0) as sdk:
        yield Endpoint(sdk, client, workflow, key)
