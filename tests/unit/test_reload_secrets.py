"""Files that hold secrets are read again when they change; while one is unusable, the last good policies stay."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.configured import defaults_of
from service.identity.keys import KeyCache
from service.observe.audit import Audit
from service.observe.logs import output
from service.observe.metrics import Metrics
from service.reload import PolicyStore
from service.settings import load_settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNER = Signer("https://login.example/", "app")
IDENTITY = {"issuer": SIGNER.issuer, "audience": "app", "algorithms": ["ES256"], "jwks": SIGNER.jwks}


def tenant(name: str, **upstream: Any) -> dict[str, Any]:
    identity = IDENTITY | {"match": f"claims.org == '{name}'"}
    return tenant_file(name, identity, upstream={"kind": "openai", **upstream})


def store(config: Path, **environ: str) -> PolicyStore:
    settings = load_settings(environ, config_dir=str(config))
    return PolicyStore(
        config, defaults_of(settings, environ), Metrics(), Audit(output(), clock=time.time), clock=time.time
    )


def keys_in(policies: PolicyStore) -> dict[str, list[str]]:
    tenants = policies.current.tenants.values()
    return {each.name: [key.get_secret_value() for key in each.account.api_keys] for each in tenants}


@asynccontextmanager
async def watching(policies: PolicyStore) -> AsyncIterator[None]:
    keys = KeyCache(httpx2.MockTransport(lambda _: httpx2.Response(500)), Metrics())
    task = asyncio.create_task(policies.watch(keys, asyncio.Event()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], within: float = 6.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (the file system has no event to wait for)
            await asyncio.sleep(0.02)


async def test_a_changed_key_file_is_read_again_and_an_unusable_one_is_waited_for(tmp_path: Path) -> None:
    """One that is written over, one that Kubernetes swaps below a link, and the one of OPENAI_API_KEY_FILE."""
    config, secrets, plain, usual = (tmp_path / name for name in ("config", "secrets", "plain", "usual"))
    for number in (1, 2):
        (secrets / f"..{number}").mkdir(parents=True)
        (secrets / f"..{number}" / "key").write_text(f"sk-swapped-{number}")
    (secrets / "..data").symlink_to("..1")
    (secrets / "key").symlink_to("..data/key")
    plain.write_text("sk-plain-1")
    usual.write_text("sk-usual-1")
    both = [{"file": str(secrets / "key")}, {"file": str(plain)}]
    tenants = [tenant("acme", api_key={"file": str(plain)}), tenant("swapped", api_key=both), tenant("usual")]
    policies = store(write_config(config, *tenants), OPENAI_API_KEY_FILE=str(usual))
    version = policies.current.version
    async with watching(policies):
        first = {"acme": ["sk-plain-1"], "swapped": ["sk-swapped-1", "sk-plain-1"], "usual": ["sk-usual-1"]}
        assert keys_in(policies) == first
        # Unusable: the last good ones stay, for as long as it takes.
        plain.write_text("")
        usual.unlink()
        await until(lambda: policies.failure is not None)
        assert keys_in(policies) == first
        # Mended: seen at once, not only when what was wrong is tried again.
        plain.write_text("sk-plain-2")
        usual.write_text("sk-usual-2")
        second = {"acme": ["sk-plain-2"], "swapped": ["sk-swapped-1", "sk-plain-2"], "usual": ["sk-usual-2"]}
        await until(lambda: keys_in(policies) == second)
        (secrets / "..data_tmp").symlink_to("..2")
        (secrets / "..data_tmp").replace(secrets / "..data")
        await until(lambda: keys_in(policies) == second | {"swapped": ["sk-swapped-2", "sk-plain-2"]})
        assert (policies.current.version, policies.failure) == (version, None)


async def test_a_key_file_that_is_named_before_it_is_there_is_seen_as_soon_as_it_comes(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config", tenant_file("acme", IDENTITY))
    policies = store(config)
    write_config(config, tenant("globex", api_key={"file": str(tmp_path / "late")}))
    assert not policies.reload()
    async with watching(policies):
        await until(lambda: not policies._changed(asked=False))  # the new tenant's file itself is told of once
        (tmp_path / "late").write_text("sk-late")
        await until(lambda: keys_in(policies).get("globex") == ["sk-late"])


def test_a_key_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared later is how the file was before it was read, not after."""
    key = tmp_path / "key"
    key.write_text("sk-1")
    config = write_config(tmp_path / "config", tenant("acme", api_key={"file": str(key)}))
    read = Path.read_text

    def changed_after(path: Path, **options: Any) -> str:
        text = read(path, **options)
        if path == key:
            monkeypatch.setattr(Path, "read_text", read)
            key.write_text("sk-two")
        return text

    monkeypatch.setattr(Path, "read_text", changed_after)
    policies = store(config)
    assert keys_in(policies) == {"acme": ["sk-1"]}
    assert policies._changed(asked=False)
    assert policies.reload()
    assert keys_in(policies) == {"acme": ["sk-two"]}
    assert not policies._changed(asked=False)
