"""Live reload: all or nothing, seen however the files change, and never between two parts of one request."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.app import create_app
from service.configured import defaults_of
from service.identity.keys import KeyCache
from service.observe.audit import Audit
from service.observe.logs import output
from service.observe.metrics import Metrics
from service.policy import load
from service.policy.tenant import Policies
from service.reload import PolicyStore
from service.settings import Settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNER = Signer("https://login.example/", "app")
IDENTITY = {"issuer": SIGNER.issuer, "audience": "app", "algorithms": ["ES256"], "jwks": SIGNER.jwks}


def acme(number: int, **sections: Any) -> dict[str, Any]:
    """A tenant of which two values must always belong together."""
    session = {"workflow": {"id": f"wf_{number}", "version": str(number)}}
    return tenant_file("acme", IDENTITY, **{"session": session, **sections})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "config", acme(0))


@pytest.fixture
def policies(config: Path) -> PolicyStore:
    settings = Settings(config_dir=config)
    return PolicyStore(config, defaults_of(settings, {}), Metrics(), Audit(output(), clock=time.time), clock=time.time)


@pytest.fixture
async def watched(policies: PolicyStore) -> AsyncIterator[tuple[PolicyStore, asyncio.Event]]:
    """The policies with their watch running, and the event that a SIGHUP sets."""
    keys = KeyCache(httpx2.MockTransport(lambda _: httpx2.Response(500)), Metrics())
    asked = asyncio.Event()
    watching = asyncio.create_task(policies.watch(keys, asked))
    yield policies, asked
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def workflow(policies: Policies) -> Any:
    return policies.tenants["acme"].session.constant["workflow", "id"]


async def until(condition: Callable[[], bool], within: float = 6.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (the file system has no event to wait for)
            await asyncio.sleep(0.02)


async def test_a_changed_file_is_in_force_soon(watched: tuple[PolicyStore, asyncio.Event], config: Path) -> None:
    policies, _ = watched
    write_config(config, acme(1))
    await until(lambda: workflow(policies.current) == "wf_1")


async def test_a_hangup_reloads_at_once(watched: tuple[PolicyStore, asyncio.Event], config: Path) -> None:
    policies, asked = watched
    write_config(config, acme(2))
    started = time.monotonic()
    asked.set()
    await until(lambda: workflow(policies.current) == "wf_2")
    assert time.monotonic() - started < 0.9  # sooner than the next look


async def test_a_new_and_a_removed_tenant_are_seen(watched: tuple[PolicyStore, asyncio.Event], config: Path) -> None:
    policies, asked = watched
    write_config(config, tenant_file("globex", IDENTITY))
    asked.set()
    await until(lambda: set(policies.current.tenants) == {"acme", "globex"})
    (config / "tenants" / "globex.yaml").unlink()
    asked.set()
    await until(lambda: set(policies.current.tenants) == {"acme"})


async def test_a_swapped_config_map_is_seen(tmp_path: Path) -> None:
    """Kubernetes mounts files as links through a link to a folder, and swaps that link."""
    config = tmp_path / "config"
    for number in (1, 2):
        write_config(tmp_path / f"..{number}", acme(number))
    (config / "tenants").mkdir(parents=True)
    (config / "..data").symlink_to(tmp_path / "..1")
    (config / "tenants" / "acme.yaml").symlink_to(config / "..data" / "tenants" / "acme.yaml")
    policies = PolicyStore(
        config,
        defaults_of(Settings(config_dir=config), {}),
        Metrics(),
        Audit(output(), clock=time.time),
        clock=time.time,
    )
    keys = KeyCache(httpx2.MockTransport(lambda _: httpx2.Response(500)), Metrics())
    watching = asyncio.create_task(policies.watch(keys, asyncio.Event()))
    assert workflow(policies.current) == "wf_1"
    (config / "..data_tmp").symlink_to(tmp_path / "..2")
    (config / "..data_tmp").replace(config / "..data")
    await until(lambda: workflow(policies.current) == "wf_2")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_one_bad_file_keeps_all_good_ones_out(policies: PolicyStore, config: Path) -> None:
    before = policies.current
    write_config(config, acme(3), tenant_file("globex", IDENTITY, quota={"mints": ["often"]}))
    assert not policies.reload()
    assert policies.current is before
    assert policies.failure
    assert "globex.yaml" in policies.failure
    (config / "tenants" / "globex.yaml").unlink()
    assert policies.reload()
    assert not policies.failure
    assert workflow(policies.current) == "wf_3"


def test_an_empty_directory_keeps_the_last_good_one(policies: PolicyStore, config: Path) -> None:
    (config / "tenants" / "acme.yaml").unlink()
    assert not policies.reload()
    assert workflow(policies.current) == "wf_0"


def test_where_sessions_were_issued_stays_known_for_as_long_as_they_live(config: Path) -> None:
    now = [1000.0]
    policies = PolicyStore(
        config,
        defaults_of(Settings(config_dir=config), {}),
        Metrics(),
        Audit(output(), clock=time.time),
        clock=lambda: now[0],
    )
    before = policies.current.tenants["acme"].account
    upstream = {"kind": "openai", "base_url": "https://elsewhere.example/v1", "api_key": {"file": str(config / "key")}}
    (config / "key").write_text("sk-1")
    write_config(config, acme(1, upstream=upstream))
    now[0] += 5000  # the account was in force until now
    assert policies.reload()
    now[0] += 650
    assert policies.reload()
    assert policies.account_at("acme", before.place) == before
    now[0] += 100
    assert policies.reload()
    assert policies.account_at("acme", before.place) is None
    assert policies.account_at("acme", policies.current.tenants["acme"].account.place) is not None


def test_a_process_that_starts_after_a_move_knows_where_sessions_were_issued(tmp_path: Path) -> None:
    """A rollout replaces every process, and with them what they remember: then the file must say it."""
    (tmp_path / "key").write_text("sk-1")
    before = {"kind": "openai", "base_url": "https://elsewhere.example/v1", "api_key": {"file": str(tmp_path / "key")}}
    audit = Audit(output(), clock=time.time)

    def started(**sections: Any) -> PolicyStore:
        config = write_config(tmp_path / "config", acme(0, **sections))
        return PolicyStore(config, defaults_of(Settings(config_dir=config), {}), Metrics(), audit, clock=time.time)

    account = started(upstream=before).current.tenants["acme"].account
    moved = started(former_upstreams=[before])
    assert moved.current.tenants["acme"].account.kind == "authority"
    assert moved.account_at("acme", account.place) == account
    assert started().account_at("acme", account.place) is None


async def test_trouble_with_the_directory_is_told_and_ends_nothing(
    watched: tuple[PolicyStore, asyncio.Event], config: Path
) -> None:
    """A link that leads to itself, then a file where the folder was: each is told, and mended is mended."""
    policies, asked = watched
    loop = config / "tenants" / "loop.yaml"
    loop.symlink_to(loop)
    await until(lambda: policies.failure is not None)
    loop.unlink()
    await until(lambda: policies.failure is None)
    (config / "tenants").rename(config / "aside")
    (config / "tenants").write_text("")
    asked.set()
    await until(lambda: policies.failure is not None)
    (config / "tenants").unlink()
    (config / "aside").rename(config / "tenants")
    write_config(config, acme(5))
    await until(lambda: workflow(policies.current) == "wf_5")


async def test_a_key_file_that_comes_late_is_waited_for(
    watched: tuple[PolicyStore, asyncio.Event], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not among the files that are watched; so what was wrong is tried again."""
    monkeypatch.setattr("service.reload.RETRY", 0.5)
    policies, _ = watched
    late = {name: value for name, value in IDENTITY.items() if name != "jwks"} | {"jwks_file": str(tmp_path / "late")}
    write_config(config, tenant_file("globex", late))
    await until(lambda: policies.failure is not None)
    (tmp_path / "late").write_text("{}")
    await until(lambda: policies.failure is None and "globex" in policies.current.tenants)


def test_files_that_change_while_they_are_read_are_read_again(
    policies: PolicyStore, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swapped directory must never give a mix of both: templates of one, tenants of the other."""
    template = {"session": {"workflow": {"version": "0"}}}
    write_config(config, acme(0, session={"workflow": {"id": "wf_0"}}, extends="t"), t=template)
    assert policies.reload()
    read = load._read_all

    def swapped_between(folder: Path, mistakes: Any) -> Any:
        sources = read(folder, mistakes)
        if folder.name == "templates":
            monkeypatch.setattr(load, "_read_all", read)
            template["session"]["workflow"]["version"] = "1"
            write_config(config, acme(0, session={"workflow": {"id": "wf_1"}}, extends="t"), t=template)
        return sources

    monkeypatch.setattr(load, "_read_all", swapped_between)
    assert policies.reload()
    constant = policies.current.tenants["acme"].session.constant
    assert (constant["workflow", "id"], constant["workflow", "version"]) == ("wf_1", "1")


@pytest.fixture
async def app(config: Path, redis: Redis) -> Starlette:
    return create_app(Settings(config_dir=config), redis=redis)


async def test_two_hundred_reloads_under_load_fail_no_request_and_split_no_policy(config: Path, app: Starlette) -> None:
    """A third of them are broken. Each mint carries two values of one file: they always belong together."""
    policies: PolicyStore = app.state.policies
    seen: set[str] = set()
    stop = asyncio.Event()

    async def keep_minting(client: httpx2.AsyncClient, subject: str) -> int:
        count = 0
        while not stop.is_set():
            answer = await client.post(
                "/v1/chatkit/sessions", headers={"authorization": f"Bearer {SIGNER.token(subject)}"}
            )
            assert answer.status_code == 200, answer.text
            minted = answer.json()["workflow"]
            assert minted["id"] == f"wf_{minted['version']}"
            seen.add(minted["version"])
            count += 1
        return count

    good = 0
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:
        minting = [asyncio.create_task(keep_minting(client, f"user-{n}")) for n in range(8)]
        path = config / "tenants" / "acme.yaml"
        for number in range(1, 201):
            text = yaml.safe_dump(acme(number))
            path.write_text(text[: len(text) // 2] if number % 3 == 0 else text)
            applied = await asyncio.to_thread(policies.reload)
            assert applied == (number % 3 != 0)
            good += applied
            assert workflow(policies.current) == f"wf_{number if applied else number - 1}"
        stop.set()
        minted = sum(await asyncio.gather(*minting))
    assert good == 134
    assert minted >= 100
    assert len(seen) >= 20
