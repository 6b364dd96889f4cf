"""The service beside an authority that nothing happens to, so that it can tell what became of every session."""

from collections.abc import Callable, Iterator

import pytest

from api.parts import AUTHORITY_DB, Issuer, RedisServer, stopping
from api.stack import Service
from support.processes import Process, clean_environ
from support.redis_servers import ClusterServers
from support.storm import Stage
from support.tenants import tenant_file, write_config

ServiceOn = Callable[[str], Service]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An issuer, an authority with a Redis of its own, and the tenant files that name them."""
    home = tmp_path_factory.mktemp("faults")
    redis, issuer = RedisServer(home / "authority-redis"), Issuer()
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis.url(AUTHORITY_DB))
    authority = Process("authority", "--port", "0", output=home / "authority", environ=environ)
    try:
        with stopping([authority]):
            url = authority.wait_for(r"authority is ready\b.*?(http://\S+)")[1]
            upstream = {"kind": "openai", "base_url": url, "api_key": {"env": "ACME_KEY"}}
            (home / "config").mkdir()
            config = write_config(home / "config", tenant_file("acme", issuer.identity("acme"), upstream=upstream))
            yield Stage(issuer, redis.url(AUTHORITY_DB), config)
    finally:
        issuer.close()
        redis.stop()


@pytest.fixture(scope="module")
def service_on(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceOn]:
    """Start the service on a Redis URL; it ends with the module."""
    started: list[Service] = []

    def start(redis_url: str) -> Service:
        output = tmp_path_factory.mktemp("faults-service") / "log"
        settings = {"CHATKIT_MINT_REDIS_TIMEOUT": "0.5", "CHATKIT_MINT_REDIS_CONNECTIONS": "8"}
        started.append(Service(output, stage.config, redis_url, **settings))
        return started[-1].wait()

    yield start
    for service in started:
        service.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """The middle one of the three primaries, and the last, are there again after each test."""
    cluster = ClusterServers(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        for server in cluster.servers:
            server.kill()
