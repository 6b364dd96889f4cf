"""schemathesis asks the real service whatever `/openapi.json` says, and whatever it does not, with every check on."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.parts import Issuer, RedisServer
from api.stack import Service
from service.identity.service_keys import make_service_key
from support.processes import clean_environ
from support.tenants import tenant_file, write_config

pytestmark = pytest.mark.process

HERE = Path(__file__).parent
SHORT, LONG = 4, 400
"""Examples that are made up for each route, in `make test` and in `make soak`; the systematic ones come on top."""
DB = 2
KEY, DIGEST = make_service_key()
MAY = {
    "workflow.id": ["wf_support", "wf_sales"],
    "rate_limits.max_requests_per_1_minute": {"min": 1, "max": 20},
    "chatkit_configuration.file_upload.enabled": True,
}


@dataclass(frozen=True)
class Fuzzed:
    """The service, and who can call it."""

    service: Service
    issuer: Issuer
    home: Path

    def run(self, *options: str, examples: int, bearer: str | None = None) -> None:
        """Run schemathesis; fail with what it found."""
        config = ["--config-file", str(HERE / "schemathesis.toml")]
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *config,
            "run",
            f"{self.service.url}/openapi.json",
        ]
        fixed = ["--checks", "all", "--no-color", "--generation-database", "none", "--continue-on-failure"]
        if examples == SHORT:
            fixed += ["--seed", "20261120"]
        credential = ["-H", f"Authorization: Bearer {bearer}"] if bearer else []
        ended = subprocess.run(
            [*command, *fixed, "--max-examples", str(examples), *credential, *options],
            cwd=self.home,
            env=clean_environ(SCHEMATHESIS_HOOKS="schemathesis_hooks", PYTHONPATH=str(HERE)),
            capture_output=True,
            text=True,
            timeout=50 if examples == SHORT else 900,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[:3000] + ended.stdout[-20_000:] + ended.stderr[-2000:]

    def user(self, subject: str) -> str:
        return self.issuer.token("fuzz", subject, exp=4_102_444_800)


@pytest.fixture(scope="module")
def fuzzed(
    issuer: Issuer, authorities: dict[str, str], redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fuzzed]:
    """A service whose limits are too far away to be met; the limits have tests of their own."""
    home = tmp_path_factory.mktemp("schemathesis")
    tenant = tenant_file(
        "fuzz",
        issuer.identity("fuzz"),
        upstream={"kind": "openai", "base_url": authorities["main"], "api_key": {"env": "ACME_KEY"}},
        quota={"mints": ["1000000/minute"], "live_sessions": {"max": 5, "excess": "cancel_oldest"}},
        client_may=MAY,
        service_keys=[{"name": "hook", "sha256": DIGEST, "may": ["logout", "read", "verify"]}],
    )
    service = Service(home / "log", write_config(home / "config", tenant), redis_server.url(DB))
    try:
        yield Fuzzed(service.wait(), issuer, home)
    finally:
        service.close()


AMOUNTS = [SHORT, pytest.param(LONG, marks=[pytest.mark.soak, pytest.mark.timeout(1000)])]


@pytest.mark.parametrize("examples", AMOUNTS)
def test_of_a_user(fuzzed: Fuzzed, examples: int) -> None:
    apart = ["--exclude-operation-id", "logOut", "--exclude-path-regex", "^/v1/tenants/|^/api/chatkit/"]
    fuzzed.run(*apart, examples=examples, bearer=fuzzed.user("alice"))


@pytest.mark.parametrize("examples", AMOUNTS)
def test_of_a_user_who_logs_out(fuzzed: Fuzzed, examples: int) -> None:
    fuzzed.run("--include-operation-id", "logOut", examples=examples, bearer=fuzzed.user("bob"))


@pytest.mark.parametrize("examples", AMOUNTS)
def test_of_a_server(fuzzed: Fuzzed, examples: int) -> None:
    theirs = "^/v1/tenants/|^/v1/chatkit/sessions/(verify|ended)$|/uploads$"
    fuzzed.run("--include-path-regex", theirs, examples=examples, bearer=KEY)


@pytest.mark.parametrize("examples", AMOUNTS)
def test_of_nobody(fuzzed: Fuzzed, examples: int) -> None:
    fuzzed.run(*(["--phases", "fuzzing"] if examples == SHORT else []), examples=examples)
