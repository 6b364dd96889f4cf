"""`chatkit-mint service-key` makes what a tenant file takes and a server presents."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from redis.asyncio import Redis
from typer.testing import CliRunner

from service.app import create_app
from service.cli.base import app as command
from service.settings import Settings
from support.processes import COMMAND, ROOT, clean_environ
from support.tenants import write_config
from unit.http.house import Browser, Login


def run(*options: str) -> str:
    result = CliRunner().invoke(command, ["service-key", *options])
    assert result.exit_code == 0, result.output
    return result.output


async def allowed(redis: Redis, folder: Path, login: Login, pasted: str, key: str) -> list[int]:
    """Paste that into a tenant file; what the key then gets, for a logout and for a list."""
    write_config(folder, login.tenant())
    with (folder / "tenants" / "acme.yaml").open("a") as file:
        file.write(pasted)
    server = Browser(create_app(Settings(config_dir=folder), {}, redis=redis), origin=None, token=key)
    user = "/v1/tenants/acme/users/alice"
    return [
        (await server.ask(method, f"{user}/{doing}")).status_code
        for method, doing in (("POST", "logout"), ("GET", "sessions"))
    ]


@pytest.mark.process
def test_the_real_command_prints_it() -> None:
    ended = subprocess.run(
        [*COMMAND, "service-key"], capture_output=True, text=True, check=True, env=clean_environ(), cwd=ROOT, timeout=30
    )
    pasted, _, rest = ended.stdout.partition("\n\n")
    key = rest.strip().splitlines()[-1]
    assert ended.stderr == ""
    assert key not in pasted
    (entry,) = yaml.safe_load(pasted)["service_keys"]
    assert entry["sha256"] == hashlib.sha256(key.encode()).hexdigest()


async def test_what_it_prints_works_as_pasted_whole(redis: Redis, tmp_path: Path, login: Login) -> None:
    """Comment lines and all, but for the key itself, which is a secret."""
    *pasted, key = run("--name", "crm").strip().splitlines()
    assert await allowed(redis, tmp_path, login, "\n".join(pasted) + "\n", key) == [200, 403]


@pytest.mark.parametrize(
    "name", ["app-server", "42", "true", "~", "crm: eu", "a, may: [read]", "it's", 'say "hi"', "ädä", "#1", "{x}", " "]
)
async def test_any_name_can_be_pasted(redis: Redis, tmp_path: Path, login: Login, name: str) -> None:
    pasted, _, rest = run("--name", name).partition("\n\n")
    key = rest.strip().splitlines()[-1]
    assert await allowed(redis, tmp_path, login, pasted + "\n", key) == [200, 403]
    assert yaml.safe_load(pasted)["service_keys"][0]["name"] == name


async def test_json_is_for_machines(redis: Redis, tmp_path: Path, login: Login) -> None:
    made: dict[str, Any] = orjson.loads(run("--json", "--name", "crm: eu"))
    assert set(made) == {"name", "key", "sha256"}
    assert made["name"] == "crm: eu"
    assert made["sha256"] == hashlib.sha256(made["key"].encode()).hexdigest()
    entry = {"name": made["name"], "sha256": made["sha256"], "may": ["read", "logout"]}
    pasted = yaml.safe_dump({"service_keys": [entry]})
    assert await allowed(redis, tmp_path, login, pasted, made["key"]) == [200, 200]


def test_each_run_makes_another() -> None:
    assert len({orjson.loads(run("--json"))["key"] for _ in range(5)}) == 5
