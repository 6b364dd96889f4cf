"""The browser module itself: how it is served, what it does alone, and whether its types are right."""

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.app import create_app
from service.http.assets import browser_module
from service.settings import Settings
from support.pages import named
from support.processes import ROOT
from support.tenants import tenant_file, write_config
from support.tokens import Signer

HERE = ROOT / "tests" / "browser"
SOURCES = ROOT / "service" / "http" / "browser"
MODULE, TYPES = "/v1/client.js", "/v1/client.d.ts"


@pytest.fixture
def app(tmp_path: Path, redis: Redis) -> Starlette:
    identity = {"issuer": "https://login.example/", "audience": "app", "algorithms": ["ES256"], "jwks": Signer().jwks}
    return create_app(
        Settings(
            config_dir=write_config(tmp_path, tenant_file("acme", identity, cors={"origins": ["https://page.example"]}))
        ),
        redis=redis,
    )


async def ask(app: Starlette, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="https://mint.example") as http:
        return await http.request(
            method, path, headers={name.replace("_", "-"): each for name, each in headers.items()}
        )


@pytest.mark.parametrize(("path", "kind"), [(MODULE, "text/javascript"), (TYPES, "text/plain")])
async def test_the_files_are_served_as_they_are(app: Starlette, path: str, kind: str) -> None:
    answer = await ask(app, path)
    assert answer.status_code == 200
    assert answer.content == (SOURCES / Path(path).name).read_bytes()
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "public, max-age=300, must-revalidate"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", [MODULE, TYPES])
@pytest.mark.parametrize("origin", ["https://page.example", "https://of-no-tenant.example", "null"])
async def test_any_page_may_read_it_and_caches_keep_one_copy_for_all(app: Starlette, path: str, origin: str) -> None:
    etag = browser_module().etag if path == MODULE else '"other"'
    for answer in (await ask(app, path, origin=origin), await ask(app, path, origin=origin, if_none_match=etag)):
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert not {"vary", "access-control-allow-credentials"} & set(answer.headers)


async def test_the_module_is_under_4096_bytes(app: Starlette) -> None:
    assert len((await ask(app, MODULE)).content) < 4096


async def test_the_printed_integrity_is_that_of_what_is_served(app: Starlette) -> None:
    digest = hashlib.sha384((await ask(app, MODULE)).content).digest()
    assert browser_module().integrity == f"sha384-{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', '"other",W/{} ', "*"])
async def test_who_has_the_file_gets_304(app: Starlette, known: str) -> None:
    first = await ask(app, MODULE)
    etag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    answer = await ask(app, MODULE, if_none_match=known.replace("{}", etag))
    assert (answer.status_code, answer.content) == (304, b"")
    # RFC 9110 §15.4.5: what a cache would have to update; and a page must be let read the answer.
    for name in ("etag", "cache-control", "access-control-allow-origin"):
        assert answer.headers[name] == first.headers[name]
    assert not {"content-type", "content-length"} & set(answer.headers)


@pytest.mark.parametrize("known", ['"other"', "", '"'])
async def test_who_has_another_gets_the_file(app: Starlette, known: str) -> None:
    assert (await ask(app, MODULE, if_none_match=known)).status_code == 200
    assert (await ask(app, MODULE, if_none_match=(await ask(app, TYPES)).headers["etag"])).status_code == 200


async def test_head_and_other_methods(app: Starlette) -> None:
    head = await ask(app, MODULE, "HEAD")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(browser_module().content)))
    refused = await ask(app, MODULE, "POST")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")


async def test_its_requests_have_a_name_in_the_metrics(app: Starlette) -> None:
    await ask(app, MODULE)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app.state.operations), base_url="http://ops.example"
    ) as http:
        text = (await http.get("/metrics")).text
    assert re.search(rf'chatkit_mint_requests_total{{.*route="{MODULE}".*}} 1', text)


def run(*words: str | Path, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


def test_it_does_alone_what_its_types_promise() -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    done = run(node, "--test", "--test-reporter", "spec", "client.test.mjs")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^. pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed
    assert int(passed[1]) > 40


def compiled(compiler: Path, folder: Path, *options: str, **sources: str) -> subprocess.CompletedProcess[str]:
    """Check the sources beside the module, as an app has it that copied it."""
    for name in ("client.js", "client.d.ts"):
        shutil.copy(SOURCES / name, folder)
    for name in ("auth.ts", "tsconfig.json"):
        shutil.copy(HERE / "types" / name, folder)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    for name, text in sources.items():
        (folder / name).write_text(text)
    return run(compiler, "--project", folder, *options, cwd=folder)


def test_the_types_and_the_examples_go_with_chatkits_own_types(compiler: Path, tmp_path: Path) -> None:
    files = {**named("docs/frontend.md"), **named("docs/migration.md")}
    examples = {name: text for name, text in files.items() if name.endswith((".ts", ".tsx"))}
    assert sorted(examples) == ["Chat.tsx", "Panel.tsx", "mint.ts", "trouble.tsx", "useChat.ts"]
    contract = (HERE / "types" / "contract.tsx").read_text()
    done = compiled(compiler, tmp_path, **examples, **{"contract.tsx": contract})
    assert (done.returncode, done.stdout) == (0, "")


def test_the_types_name_all_that_the_module_exports() -> None:
    exported = re.findall(r"^export (?:class|function) (\w+)", (SOURCES / "client.js").read_text(), re.MULTILINE)
    declared = re.findall(r"^export (?:class|function) (\w+)", (SOURCES / "client.d.ts").read_text(), re.MULTILINE)
    assert sorted(exported) == sorted(declared) == ["MintError", "createClient"]
