"""Every command of docs/deploy.md: shell that parses, and names that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from service.serve import KEEP_ALIVE
from support.checkers import checker
from support.processes import ROOT

PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
MADE = {"deploy/compose/secrets"}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_is_shell(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, timeout=10, check=True)


def test_every_path_of_the_project_exists() -> None:
    named = set(re.findall(r"(?<![\w/.-])(?:deploy|requirements|tests|docs)/[\w./-]*\w", PAGE)) - MADE
    assert len(named) > 5
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= set(targets)


def test_the_secret_has_what_the_pods_read(tmp_path: Path) -> None:
    (command,) = [line for line in COMMANDS if "create secret" in line]
    words = [*shlex.split(command), "--dry-run=client", "--output=yaml"]
    words[0] = checker("kubectl")
    for name in re.findall(r"--from-file=(\S+)", command):
        (tmp_path / name).write_text("x" * 32)
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    folder = ROOT / "deploy" / "kubernetes"
    files = [folder / "base" / "deployment.yaml", folder / "overlays" / "example" / "deployment.yaml"]
    read = {Path(path).name for file in files for path in re.findall(r"/run/secrets/\S+", file.read_text())}
    assert set(yaml.safe_load(made.stdout)["data"]) == read - {"chatkit-mint"}


def test_the_labels_are_those_of_the_network_policy() -> None:
    policy = (ROOT / "deploy" / "kubernetes" / "base" / "network.yaml").read_text()
    asked = set(re.findall(r"chatkit-mint\.example/role: (\w+)", policy))
    assert set(re.findall(r"chatkit-mint\.example/role=(\w+)", PAGE)) == asked == {"ingress", "monitoring"}


def test_the_unit_finds_what_the_commands_install() -> None:
    unit = (ROOT / "deploy" / "systemd" / "chatkit-mint.service").read_text()
    (environment,) = re.findall(r"^EnvironmentFile=-(\S+)$", unit, re.MULTILINE)
    (python,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert any(line.endswith(environment) for line in COMMANDS)
    assert f"python3 -m venv {python.removesuffix('/bin/python')}" in COMMANDS
    secrets = set(re.findall(r"^LoadCredential=([\w-]+):", unit, re.MULTILINE))
    assert all(f"`{name}`" in PAGE for name in secrets)


def test_figures_are_the_services_own() -> None:
    assert f"less than {KEEP_ALIVE} seconds" in PAGE.replace("\n", " ")
