"""One stack for all of these tests: each test brings users of its own, so nothing has to be swept between."""

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.parts import AUTHORITY_DB, SERVICE_DB, Issuer, RedisServer, stopping
from api.stack import API_KEYS, PATIENT, Caller, Fragile, Service, Someone, Upstream
from support.processes import Process, clean_environ, deaf_port
from support.tenants import tenant_file, write_config

AUTHORITIES = {
    "main": [],
    "lost": ["--workflow", "wf_of_another_project"],
    "slow": ["--fault", "latency=0.6"],
    "failing": ["--fault", "failing=1"],
    "limited": ["--fault", "rate_limited=1"],
    "dropping": ["--fault", "drop_after_create=1"],
}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("api-redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="session")
def authorities(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Base URLs of session authorities by what is wrong with each; all keep their sessions in one place."""
    home = tmp_path_factory.mktemp("api-authorities")
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis_server.url(AUTHORITY_DB), **PATIENT)
    processes = {
        name: Process("authority", "--port", "0", *options, output=home / name, environ=environ)
        for name, options in AUTHORITIES.items()
    }
    with stopping(list(processes.values())):
        ready = re.compile(r"authority is ready\b.*?(http://\S+)")
        yield {name: process.wait_for(ready.pattern)[1] for name, process in processes.items()}


@pytest.fixture(scope="session")
def config(issuer: Issuer, authorities: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tenants of every kind that the tests need, as an operator would write them."""

    def tenant(name: str, upstream: str, *, key: str = "ACME_KEY", **sections: Any) -> dict[str, Any]:
        return tenant_file(
            name,
            issuer.identity(name),
            upstream={"kind": "openai", "base_url": upstream, "api_key": {"env": key}},
            **sections,
        )

    main = authorities["main"]
    variables = {"plan": "pro", "greeting": "Hello ${claims.sub}"}
    return write_config(
        tmp_path_factory.mktemp("api-config"),
        tenant(
            "acme",
            main,
            session={
                "workflow": {"id": "wf_acme", "state_variables": variables},
                "rate_limits": {"max_requests_per_1_minute": 15},
                "expires_after": {"seconds": 300},
            },
            client_may={
                "workflow.id": ["wf_acme", "wf_sales"],
                "rate_limits.max_requests_per_1_minute": {"min": 1, "max": 20},
            },
        ),
        tenant("globex", main, key="GLOBEX_KEY"),
        tenant(
            "open",
            main,
            session={"workflow": {"id": "wf_open", "state_variables": variables}},
            expose_state_variables=True,
        ),
        tenant("tight", main, quota={"mints": ["2/minute"]}),
        tenant(
            "few",
            main,
            quota={"mints": ["500/minute"], "live_sessions": {"max": 2, "excess": "refuse"}},
        ),
        tenant("five", main, quota={"live_sessions": {"max": 5, "excess": "refuse"}}),
        tenant("rolling", main, quota={"live_sessions": {"max": 4, "excess": "cancel_oldest"}}),
        tenant("nowhere", f"http://127.0.0.1:{deaf_port()}/v1"),
        *(tenant(name, url) for name, url in authorities.items() if name != "main"),
    )


@pytest.fixture(scope="session")
def service(config: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service under test."""
    output = tmp_path_factory.mktemp("api-service") / "log"
    service = Service(output, config, redis_server.url(SERVICE_DB), **PATIENT)
    try:
        yield service.wait()
    finally:
        service.close()


@pytest.fixture(scope="session")
def upstream(redis_server: RedisServer) -> Upstream:
    return Upstream(redis_server.url(AUTHORITY_DB))


@pytest.fixture
def someone(service: Service, issuer: Issuer) -> Someone:
    """Log somebody in, whom no other test knows."""

    def logged_in(tenant: str = "acme", subject: str | None = None, **claims: Any) -> Caller:
        return Caller(service, issuer, tenant, subject or f"user-{secrets.token_hex(6)}", claims=claims)

    return logged_in


@pytest.fixture(scope="session")
def fragile_stack(config: Path, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    home = tmp_path_factory.mktemp("api-fragile")
    redis = RedisServer(home / "redis")
    service = Service(home / "log", config, redis.url(SERVICE_DB))
    try:
        yield Fragile(service.wait(), redis, issuer)
    finally:
        service.close()
        redis.stop()


@pytest.fixture
def fragile(fragile_stack: Fragile) -> Iterator[Fragile]:
    """The fragile stack, whole at the beginning and whole again at the end."""
    yield fragile_stack
    fragile_stack.redis.stop()
    fragile_stack.redis.start()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a command with a clean environment; whatever still runs ends with the test."""
    started: list[Process] = []

    def start(*arguments: str, **environ: str) -> Process:
        process = Process(
            *arguments,
            output=tmp_path / f"output-{len(started)}",
            environ=clean_environ(**{**API_KEYS, **environ}),
        )
        started.append(process)
        return process

    with stopping(started):
        yield start
