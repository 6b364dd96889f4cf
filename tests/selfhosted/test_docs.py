"""docs/self-hosting.md, verifier/README.md and the example's own: what readers type, save or start."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from pydantic import SecretStr
from redis.asyncio import Redis
from server import GRANTS, Chat, create_app
from starlette.middleware.cors import CORSMiddleware
from stores import Files, SqliteStore

from api.test_dev import SCRIPT, Dev
from authority.parts import KEY, on_a_port
from chatkit_sessions import SessionMiddleware, VerifiedSession
from chatkit_sessions.chatkit_server import GrantedServer
from chatkit_sessions.forwarded import NAMES, ForwardedMiddleware
from chatkit_sessions.redis import RedisVerifier
from selfhosted.parts import SIGNERS, Person
from service.app import create_app as create_service
from service.settings import Settings
from support.processes import ROOT, Process, clean_environ, free_port
from support.tenants import tenant_file, write_config

pytestmark = pytest.mark.process

EXAMPLE = ROOT / "docs" / "examples" / "self-hosted"
PAGE, PACKAGE, STEPS = (
    place.read_text() for place in (ROOT / "docs/self-hosting.md", ROOT / "verifier/README.md", EXAMPLE / "README.md")
)
FIVE = {f"x-chatkit-{name.decode()}" for name in NAMES}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_names_are_there() -> None:
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / place).exists(), place
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", PACKAGE):
        assert (ROOT / "verifier" / place).exists(), place


def test_what_stands_in_a_tenants_file_may_stand_there(redis_socket: Path, tmp_path: Path) -> None:
    upstream, rollout = [yaml.safe_load(block) for block in blocks(PAGE, "yaml") if "127.0.0.1" not in block]
    assert upstream == {"upstream": {"kind": "authority"}}
    signer = SIGNERS["acme"]
    identity = {"issuer": signer.issuer, "audience": "acme", "algorithms": ["ES256"], "jwks": signer.jwks}
    config = write_config(tmp_path, tenant_file("acme", identity, **upstream, **rollout))
    create_service(Settings(config_dir=config, redis_url=SecretStr(f"unix://{redis_socket}")), {})


def test_the_proxies_that_are_not_run_here_name_all_five_headers() -> None:
    traefik, envoy = [yaml.safe_load(block) for block in blocks(PAGE, "yaml") if "127.0.0.1" in block]
    middlewares = traefik["http"]["middlewares"]
    taken = middlewares["chatkit-nobody"]["headers"]["customRequestHeaders"]
    assert {name.lower() for name in taken} == FIVE
    assert not any(taken.values())
    assert {name.lower() for name in middlewares["chatkit-session"]["forwardAuth"]["authResponseHeaders"]} == FIVE
    for router in traefik["http"]["routers"].values():
        assert router["middlewares"][0] == "chatkit-nobody"
    config = envoy["typed_config"]
    patterns = config["http_service"]["authorization_response"]["allowed_upstream_headers"]["patterns"]
    assert {each["exact"] for each in patterns} == FIVE
    assert config["failure_mode_allow"] is False


async def test_the_pages_server_works(redis: Redis, tmp_path: Path) -> None:
    whole, behind = blocks(PAGE, "python")
    store = SqliteStore(":memory:")
    names: dict[str, Any] = {
        "GrantedServer": GrantedServer,
        "VerifiedSession": VerifiedSession,
        "SessionMiddleware": SessionMiddleware,
        "ForwardedMiddleware": ForwardedMiddleware,
        "CORSMiddleware": CORSMiddleware,
        "RedisVerifier": lambda _: RedisVerifier(redis),
        "MyStore": lambda: store,
        "MyFiles": lambda: Files(tmp_path, "http://chat.example/upload"),
        "UPLOADS": GRANTS["file_upload"],
        "HISTORY": GRANTS["history"],
    }
    inner: list[Any] = []

    async def app(*args: Any) -> None:
        await inner[0](*args)

    names["app"] = app
    exec(whole, names)  # noqa: S102
    inner.append(create_app(names["chat"], Files(tmp_path, "")))
    preflight = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    async with on_a_port(names["app"], "off") as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.options("/chatkit", headers=preflight)).status_code == 200
        assert (await client.post("/chatkit")).status_code == 401
        assert (await client.post("/health")).status_code == 404
    exec(behind, {**names, "app": app})  # noqa: S102
    store.close()


async def test_the_packages_examples_work(redis: Redis, mint_url: str, tmp_path: Path) -> None:
    first, second, third = blocks(PACKAGE, "python")
    names: dict[str, Any] = {"REDIS": redis}
    exec(first.replace('RedisVerifier("redis://127.0.0.1:6379/0")', "RedisVerifier(REDIS)"), names)  # noqa: S102
    async with (
        on_a_port(names["app"], "off") as url,
        httpx2.AsyncClient(base_url=url) as app,
        httpx2.AsyncClient(base_url=mint_url) as mint,
    ):
        alice = await Person(mint, app, SIGNERS["acme"], "alice").arrive()
        answer = await app.get("/me", headers=alice.headers)
        assert answer.json() == {"user": "acme:alice", "tenant": "acme"}
        space: dict[str, Any] = {}
        exec(second.replace("http://127.0.0.1:8080", mint_url), space)  # noqa: S102
        assert await space["whose"](alice.session["client_secret"], KEY) == "acme:alice"
        assert await space["whose"]("ek_nobody", KEY) is None
    space = {}
    exec(third, space)  # noqa: S102
    store = SqliteStore(tmp_path / "chat.sqlite")
    assert isinstance(space["chat"](store, Files(tmp_path, ""), RedisVerifier(redis)), GrantedServer)
    store.close()


def test_the_server_is_as_short_as_it_is_said_to_be() -> None:
    assert len((EXAMPLE / "server.py").read_text().splitlines()) < 150
    assert Chat.pause > 0


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(SCRIPT, tmp_path)
    yield dev
    dev.stop()


def test_the_steps_of_the_example(dev: Dev, tmp_path: Path) -> None:
    *commands, steps = blocks(STEPS, "sh")
    assert commands == ["make run\n", "make chat\n"]
    dev.ready()
    port = free_port()
    environ = clean_environ(
        CHAT_PORT=str(port),
        CHAT_DIR=str(tmp_path / "chat"),
        CHAT_REDIS_URL=f"unix://{tmp_path}/dev/redis/redis.sock",
        CHAT_PAUSE="0.2",
    )
    command = ["make", "--old-file", ".venv/.installed", *commands[1].split()[1:]]
    chat = Process(output=tmp_path / "chat.log", environ=environ, command=command)
    try:
        chat.wait_ready(f"http://127.0.0.1:{port}/")
        page = httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).text
        assert "client.fetch" in page
        script = steps.replace("127.0.0.1:8080", f"127.0.0.1:{dev.ports[0]}").replace(":8000", f":{port}")
        script = script.replace(".venv/bin/chatkit-mint token", f"{SCRIPT[0]} token --dir {tmp_path / 'dev'}")
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    finally:
        chat.stop()
    assert '"cancelled":1' in ran.stdout, ran.stdout + ran.stderr
    assert '"acme:alice "' in ran.stdout
    assert "This chat session has ended." in ran.stdout
    assert "twelve " not in ran.stdout.partition("text_delta")[2], "the logout came too late"
