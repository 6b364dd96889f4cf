"""The service on a port, with one tenant whose sessions come from the authority, and both ways to verify them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from authority.parts import HASH, KEY, on_a_port
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.redis import RedisVerifier
from chatkit_sessions.verifier import Verifier
from service.app import create_app
from service.settings import Settings
from service.upstream.authority.sessions import Authority
from support.tenants import tenant_file, write_config
from support.tokens import Signer


@pytest.fixture
async def mint_url(redis: Redis, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a service that runs."""
    signer = Signer()
    identity = {"issuer": signer.issuer, "audience": "acme", "algorithms": ["ES256"], "jwks": signer.jwks}
    keys = [{"name": "chat", "sha256": HASH, "may": ["verify"]}]
    config = write_config(tmp_path / "config", tenant_file("acme", identity, service_keys=keys))
    app = create_app(Settings(config_dir=config), {}, redis=redis)
    async with on_a_port(app) as url:
        yield url


@pytest.fixture
def authority(redis: Redis) -> Authority:
    return Authority(redis)


@pytest.fixture
async def by_redis(redis: Redis) -> AsyncIterator[Verifier]:
    verifier = RedisVerifier(redis)
    yield verifier
    await verifier.aclose()


@pytest.fixture
async def by_http(mint_url: str) -> AsyncIterator[Verifier]:
    verifier = HTTPVerifier(mint_url, KEY)
    yield verifier
    await verifier.aclose()


@pytest.fixture(params=["redis", "http"])
async def verifier(request: pytest.FixtureRequest, redis: Redis, mint_url: str) -> AsyncIterator[Verifier]:
    """One of the two: what holds for one must hold for the other."""
    verifier: Verifier = RedisVerifier(redis) if request.param == "redis" else HTTPVerifier(mint_url, KEY)
    yield verifier
    await verifier.aclose()
