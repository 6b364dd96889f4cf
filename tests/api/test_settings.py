"""Wrong settings and tenant files: `serve` stops with the place and the reason, `check` tells the same."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.stack import API_KEYS
from support.processes import clean_environ
from support.zygote import Call, Ran, zygote

pytestmark = pytest.mark.process

Run = Callable[..., Ran]

GOOD = """\
tenant: acme
identity:
  - issuer: https://login.example.com/
    audience: acme-app
    algorithms: [ES256]
upstream: {kind: openai, api_key: {env: ACME_KEY}}
session:
  workflow: {id: wf_acme}
"""


def written(config: Path, **files: str) -> Path:
    """Write tenant files as they stand; return the directory."""
    (config / "tenants").mkdir(parents=True)
    for name, text in files.items():
        (config / "tenants" / f"{name}.yaml").write_text(text)
    return config


def called(*arguments: str, **environ: str) -> Ran:
    """Run a command that ends by itself."""
    return zygote().run(Call(arguments, clean_environ(**{**API_KEYS, **environ})))


@pytest.fixture
def run() -> Run:
    return called


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    return lambda **files: written(tmp_path / "config", **files)


@pytest.fixture
def serve(run: Run, tmp_path: Path) -> Run:
    """`serve` with a private Redis below the test's own directory, and ports of the system's choice."""

    def started(**settings: str) -> Ran:
        defaults = {
            "CHATKIT_MINT_REDIS_DIR": str(tmp_path / "redis"),
            "CHATKIT_MINT_PORT": "0",
            "CHATKIT_MINT_OPS_PORT": "0",
        }
        return run("serve", **{**defaults, **settings})

    return started


BROKEN = {
    "unknown_key": (GOOD + "sesion: {}\n", r":9:1: .*`sesion`.*`session`"),
    "impossible_value": (
        GOOD + "  expires_after: {anchor: created_at, seconds: 900}\n",
        r":9:39: `seconds`.*600",
    ),
    "missing_key": (GOOD.replace("audience: acme-app", "typ: JWT"), r":3:5: `audience` is missing"),
    "absent_secret": (GOOD.replace("ACME_KEY", "NO_SUCH_KEY"), r":6:\d+: .*NO_SUCH_KEY"),
    "bad_expression": (GOOD + "user: '\"acme:\" + claims.'\n", r":9:1: \S+"),
    "duplicate": (GOOD + "tenant: globex\n", r":9:1: `tenant`.* a second time.* line 1"),
    "not_yaml": (GOOD + "user: [\n", r":\d+:\d+: not valid YAML"),
    "not_a_map": ("- acme\n", r":1:1: \S+"),
    "unknown_template": (GOOD + "extends: standrad\n", r":9:1: .*'standrad'"),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one `check` says of a directory in which each file is broken in a way of its own."""
    home = tmp_path_factory.mktemp("api-broken")
    files = {name: text.replace("tenant: acme", f"tenant: {name}") for name, (text, _) in BROKEN.items()}
    config = written(home / "config", good=GOOD, **files)
    process = called("check", str(config))
    assert process.code == 1
    return process.text


@pytest.mark.parametrize("name", list(BROKEN))
def test_check_names_file_line_column_and_reason(checked: str, name: str) -> None:
    pattern = BROKEN[name][1]
    assert re.search(rf"^/\S+/config/tenants/{name}\.yaml{pattern}", checked, re.MULTILINE), checked


def test_check_names_no_good_file_and_counts_the_mistakes(checked: str) -> None:
    assert "good.yaml" not in checked
    assert "Traceback" not in checked
    assert re.search(r"^9 mistakes", checked, re.MULTILINE), checked


def test_serve_refuses_a_bad_tenant_file(serve: Run, folder: Callable[..., Path]) -> None:
    config = folder(acme=GOOD, globex=GOOD.replace("acme", "globex").replace("wf_globex", "7"))
    process = serve(CHATKIT_MINT_CONFIG_DIR=str(config))
    assert process.code == 1
    assert re.search(
        rf"^{re.escape(str(config))}/tenants/globex\.yaml:8:14: `id`: should be text", process.text, re.MULTILINE
    )
    assert "Traceback" not in process.text
    assert "acme.yaml" not in process.text


def test_serve_reports_several_mistakes_at_once(serve: Run, folder: Callable[..., Path]) -> None:
    config = folder(
        acme=GOOD.replace("[ES256]", "[none]") + "colour: red\n",
        globex=GOOD.replace("tenant: acme", "tenant: Globex!") + "user: '1 +'\n",
    )
    process = serve(CHATKIT_MINT_CONFIG_DIR=str(config))
    assert process.code == 1
    text = process.text
    assert re.search(r"acme\.yaml:5:\d+: ", text)
    assert re.search(r"acme\.yaml:9:1: ", text)
    assert re.search(r"globex\.yaml:1:\d+: ", text)


def test_serve_without_any_tenant(serve: Run, folder: Callable[..., Path]) -> None:
    process = serve(CHATKIT_MINT_CONFIG_DIR=str(folder()))
    assert process.code == 1
    assert "holds no tenant file" in process.text


def test_serve_names_every_wrong_setting(serve: Run, folder: Callable[..., Path]) -> None:
    process = serve(
        CHATKIT_MINT_CONFIG_DIR=str(folder(acme=GOOD)),
        CHATKIT_MINT_PORTT="8080",
        CHATKIT_MINT_PORT="eighty",
        CHATKIT_MINT_UPSTREAM_TIMEOUT="-1",
        CHATKIT_MINT_LOG_FORMAT="xml",
        CHATKIT_MINT_REDIS_URL="http://127.0.0.1/",
        CHATKIT_MINT_ADMIN_KEY_FILE="/no/such/file",
    )
    assert process.code == 1
    lines = process.text.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "CHATKIT_MINT_ADMIN_KEY_FILE",
        "CHATKIT_MINT_LOG_FORMAT",
        "CHATKIT_MINT_PORT",
        "CHATKIT_MINT_PORTT",
        "CHATKIT_MINT_REDIS_URL",
        "CHATKIT_MINT_UPSTREAM_TIMEOUT",
    ]
    assert all(len(line.partition(": ")[2]) > 5 for line in lines), lines
    assert "eighty" not in process.text


@pytest.mark.parametrize("setting", ["CHATKIT_MINT_PORT", "CHATKIT_MINT_OPS_PORT"])
def test_a_taken_port_is_one_line_that_names_the_setting(serve: Run, folder: Callable[..., Path], setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve(CHATKIT_MINT_CONFIG_DIR=str(folder(acme=GOOD)), **{setting: str(port)})
        assert process.code == 1
    [line] = process.text.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert line.endswith(setting)


def test_check_says_fine(run: Run, folder: Callable[..., Path]) -> None:
    process = run("check", str(folder(acme=GOOD, globex=GOOD.replace("acme", "globex"))))
    assert process.code == 0
    assert "acme, globex" in process.text


def test_check_takes_the_configured_directory(run: Run, folder: Callable[..., Path]) -> None:
    process = run("check", CHATKIT_MINT_CONFIG_DIR=str(folder(acme=GOOD)))
    assert process.code == 0


def _json(process: Ran) -> Any:
    return json.loads(process.text)


def test_check_json(run: Run, folder: Callable[..., Path]) -> None:
    config = folder(acme=GOOD, globex=GOOD.replace("acme", "globex"))
    process = run("check", "--json", str(config))
    assert process.code == 0
    report = _json(process)
    assert (report["ok"], report["tenants"]) == (True, ["acme", "globex"])
    assert report["version"]


def test_check_json_lists_mistakes(run: Run, folder: Callable[..., Path]) -> None:
    config = folder(acme=GOOD + "colour: red\ntaste: sour\n")
    process = run("check", "--json", str(config))
    assert process.code == 1
    report = _json(process)
    assert report["ok"] is False
    file = str(config / "tenants" / "acme.yaml")
    assert [(each["file"], each["line"], each["column"]) for each in report["mistakes"]] == [
        (file, 9, 1),
        (file, 10, 1),
    ]
    assert all(each["message"] for each in report["mistakes"])


def test_the_example_configuration_is_fine(run: Run) -> None:
    process = run("check")
    assert process.code == 0, process.text


@pytest.mark.parametrize(
    "arguments",
    [
        ["serf"],
        ["serve", "--port", "1"],
        ["serve", "--workers", "0"],
        ["serve", "--workers", "two"],
        ["check", "--yaml"],
        ["authority", "--fault", "x=1"],
    ],
)
def test_wrong_usage_exits_2(run: Run, arguments: list[str]) -> None:
    process = run(*arguments)
    assert process.code == 2
    assert "Usage" in process.text
