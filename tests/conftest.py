"""A real Redis for every test that asks for one; and in CI, only optional checkers are skipped."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path

import httpcore2
import pytest
from hypothesis import settings
from redis.asyncio import Redis

from service.store.connections import bounds
from service.store.private import find_redis_server
from support.checkers import OPTIONAL

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
# Every client would read the system's certificates anew, 20 ms each, and hardly any of them speaks TLS.
httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)
# A grammar that jsonschema takes a second to make, for IRIs, of which there are none here.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI: there, every tool that a test needs is installed."""
    report = yield
    optional = isinstance(report.longrepr, tuple) and OPTIONAL in report.longrepr[2]
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail") and not optional:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a redis-server that lives as long as the test run."""
    home = tmp_path_factory.mktemp("redis")
    socket = home / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(home), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([str(find_redis_server()), *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert any("ready to accept connections" in line.lower() for line in server.stdout)
            yield socket
        finally:
            server.terminate()


@pytest.fixture
async def redis(redis_socket: Path) -> AsyncIterator[Redis]:
    """A client of it as the service has one, with nothing stored yet."""
    async with Redis(unix_socket_path=str(redis_socket), max_connections=512, **bounds(10.0)) as client:
        await client.flushall()
        yield client
