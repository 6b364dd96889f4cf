"""A service that its test may end, beside authorities that answer at once and after a while."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from api.parts import AUTHORITY_DB, SERVICE_DB, Issuer, RedisServer, stopping
from api.stack import PATIENT, Service, Upstream
from service.upstream.authority.sessions import Authority
from support.house import House
from support.processes import Process, clean_environ
from support.tenants import tenant_file, write_config

LATENCIES = {"acme": 0.0, "slow": 1.5, "slower": 4.0, "stuck": 8.0}
"""Seconds that the tenant's upstream takes."""


@dataclass(frozen=True)
class Surroundings:
    """What the services of all tests share."""

    issuer: Issuer
    redis: RedisServer
    upstream: Upstream
    config: Path

    def sessions(self) -> list[dict[str, Any]]:
        """Every session that the authorities have made."""

        async def asked() -> list[dict[str, Any]]:
            async with Redis.from_url(self.redis.url(AUTHORITY_DB)) as redis:
                return await Authority(redis).sessions()

        return asyncio.run(asked())


@pytest.fixture(scope="session")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    home = tmp_path_factory.mktemp("lifecycle")
    redis, issuer = RedisServer(home / "redis"), Issuer()
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis.url(AUTHORITY_DB))
    authorities = {
        tenant: Process(
            "authority", "--port", "0", "--fault", f"latency={latency}", output=home / tenant, environ=environ
        )
        for tenant, latency in LATENCIES.items()
    }
    try:
        with stopping(list(authorities.values())):
            urls = {
                name: each.wait_for(r"authority is ready\b.*?(http://\S+)")[1] for name, each in authorities.items()
            }
            tenants = [
                tenant_file(
                    name,
                    issuer.identity(name),
                    upstream={"kind": "openai", "base_url": url, "api_key": {"env": "ACME_KEY"}, "max_concurrent": 512},
                )
                for name, url in urls.items()
            ]
            config = write_config(home / "config", *tenants)
            yield Surroundings(issuer, redis, Upstream(redis.url(AUTHORITY_DB)), config)
    finally:
        issuer.close()
        redis.stop()


Start = Callable[..., House]
"""Start a service with these settings and wait until it listens."""


@pytest.fixture
def start(around: Surroundings, tmp_path: Path) -> Iterator[Start]:
    started: list[House] = []
    with around.redis.client() as redis:
        redis.flushdb()  # no lease of a worker that another test killed

    def start(**settings: str) -> House:
        temporary = tmp_path / f"tmp-{len(started)}"
        temporary.mkdir()
        output, url = tmp_path / f"log-{len(started)}", around.redis.url(SERVICE_DB)
        service = Service(output, around.config, url, TMPDIR=str(temporary), **{**PATIENT, **settings})
        started.append(House(service, temporary))
        service.wait()
        return started[-1]

    yield start
    for house in started:
        if house.service.process.popen.poll() is None:
            os.kill(house.parent, signal.SIGCONT)  # a test may have stopped it
        house.service.close()
        for worker in house.workers().values():  # none, unless a test failed
            os.kill(worker, signal.SIGKILL)
