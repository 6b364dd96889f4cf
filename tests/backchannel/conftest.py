"""One stack for all of these tests: each test brings users of its own, so nothing has to be swept between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.parts import SERVICE_DB, RedisServer, stopping
from api.stack import Service, Upstream
from backchannel.parts import OWN_KEYS, Provider, Stack, entry
from identity.parts import Issuer
from support.issuer import ELSEWHERE
from support.processes import Process, clean_environ
from support.tenants import tenant_file, write_config


@pytest.fixture(scope="session")
def issuer_process() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="session")
def own_issuer_process() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.stop()


@pytest.fixture
def own_issuer(own_issuer_process: Issuer) -> Issuer:
    """One that the test may do anything to; whole at the beginning."""
    own_issuer_process.reset()
    return own_issuer_process


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backchannel")


@pytest.fixture(scope="session")
def redis_server(home: Path) -> Iterator[RedisServer]:
    server = RedisServer(home / "redis")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def slow_authority(redis_server: RedisServer, home: Path) -> Iterator[str]:
    """The base URL of an authority that takes its time; its sessions are beside all the others'."""
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis_server.url(SERVICE_DB))
    process = Process(
        "authority", "--port", "0", "--fault", "latency=0.5", output=home / "authority.log", environ=environ
    )
    with stopping([process]):
        yield process.wait_for(r"authority is ready\b.*?(http://\S+)")[1]


@pytest.fixture(scope="session")
def config(issuer_process: Issuer, slow_authority: str, home: Path) -> Path:
    """Tenants as their operators would write them, most named by what is peculiar to them."""

    def tenant(name: str, *, audience: str | None = None, **identity: Any) -> dict[str, Any]:
        return tenant_file(name, entry(issuer_process, audience or f"{name}-app", **identity))

    def of_org(name: str, audience: str, **identity: Any) -> dict[str, Any]:
        return tenant(name, audience=audience, match=f'claims.org == "{name}"', **identity)

    return write_config(
        home / "config",
        tenant("acme"),
        tenant("globex"),
        of_org("north", "shared-app"),
        of_org("south", "shared-app"),
        tenant("separate", logout={"audience": ["login-client", "other-client"]}),
        tenant("noexp", logout={"allow_missing_exp": True}),
        tenant("notyp", logout={"allow_missing_typ": True}),
        tenant("patient", leeway=300, max_age=3600),
        tenant("mapped", subject='"u:" + claims.sub', login='"l:" + claims.sid'),
        tenant("mailed", subject="claims.email"),
        tenant("unnamed", login="claims.session_state"),
        tenant("unknown", subject="claims.email", login="claims.session_state"),
        of_org("half-known", "half-app"),
        of_org("half-unknown", "half-app", subject="claims.email", login="claims.session_state"),
        of_org("strict", "mixed-app"),
        of_org("lax", "mixed-app", logout={"allow_missing_exp": True, "allow_missing_typ": True}),
        of_org("found", "down-app"),
        of_org("down", "down-app", jwks_url=issuer_process.url + ELSEWHERE),
        tenant("own-keys", jwks=OWN_KEYS.jwks),
        tenant("jti-login", login="claims.jti"),
        tenant_file(
            "slow",
            entry(issuer_process, "slow-app"),
            upstream={"kind": "openai", "base_url": slow_authority, "api_key": {"env": "ACME_KEY"}},
        ),
    )


@pytest.fixture(scope="session")
def whole_stack(config: Path, issuer_process: Issuer, redis_server: RedisServer, home: Path) -> Iterator[Stack]:
    # Down from the start, and only for those who ask there.
    issuer_process.fault("error", ELSEWHERE)
    url = redis_server.url(SERVICE_DB)
    # These tests are of what is answered, not of how quickly on a busy machine.
    service = Service(home / "service.log", config, url, CHATKIT_MINT_REDIS_TIMEOUT="5")
    try:
        yield Stack(service.wait(), redis_server, Provider(issuer_process), Upstream(url))
    finally:
        service.close()


@pytest.fixture
def stack(whole_stack: Stack) -> Stack:
    return whole_stack
