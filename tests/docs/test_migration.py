"""docs/migration.md: the tenant, the commands, and the configuration that passes the starter's route on."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from service.http.starters import STARTERS
from support.pages import blocks, named, save
from support.processes import ROOT
from support.terminal import Terminal

PAGE = "docs/migration.md"
PRINT_REWRITES = (
    'import("./next.config.mjs").then(async (it) => console.log(JSON.stringify(await it.default.rewrites())))'
)
BEGIN, CURL = (each.text for each in blocks(PAGE, "sh"))


@pytest.mark.process
def test_the_service_stands_in_for_the_starters_server(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    folder = tmp_path / "site"
    save(PAGE, folder)
    # Only what stands for OpenAI is not on the page: a key that it knows is the reader's own.
    terminal = open_terminal(folder, OPENAI_BASE_URL="http://127.0.0.1:8090/v1")
    terminal.serve("chatkit-mint authority", "authority is ready")
    *before, serve = BEGIN.strip().split("\n")
    code, printed = terminal.type("\n".join(before))
    assert code == 0, printed
    assert "Tenants: site. 2 tests passed." in printed
    terminal.serve(serve, '"event":"listening"')
    code, printed = terminal.type(CURL)
    assert code == 0
    assert "HTTP/1.1 200" in printed
    assert re.search(r"set-cookie: __Host-chatkit-visitor-site=", printed)
    assert set(json.loads(printed.strip().splitlines()[-1])) == {"client_secret", "expires_at", "expires_after"}
    refused = terminal.type(CURL.replace("wf_site", "wf_other"))[1]
    assert "HTTP/1.1 403" in refused
    assert isinstance(json.loads(refused.strip().splitlines()[-1])["error"], str)


def test_next_passes_the_route_on(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    (tmp_path / "next.config.mjs").write_text(named(PAGE)["next.config.mjs"])
    told = subprocess.run(
        [node, "-e", PRINT_REWRITES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    ((source, destination),) = [(each["source"], each["destination"]) for each in json.loads(told.stdout)]
    assert source in STARTERS
    assert destination == f"http://127.0.0.1:8000{source}"
    assert destination in CURL


def test_every_route_that_the_table_names_is_one() -> None:
    assert set(re.findall(r"`(?:POST )?(/api/[\w/-]+)`", (ROOT / PAGE).read_text())) == set(STARTERS)
