"""What the service runs with: pinned by hash, free of surprises, and listed."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.processes import ROOT

LICENCES = ROOT / "requirements" / "licences.py"
LOCKS = [ROOT / "requirements" / name for name in ("runtime.lock", "dev.lock")]


def entries(lock: Path) -> list[str]:
    """The lock's requirements, each with its hashes on the line."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def names(lock: Path) -> dict[str, str]:
    asked = [Requirement(entry.partition("--hash")[0]) for entry in entries(lock)]
    return {each.name: str(each.specifier).removeprefix("==") for each in asked}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_by_version_and_hash_from_no_named_place(lock: Path) -> None:
    for entry in entries(lock):
        assert re.match(r"[\w.-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry, entry
        assert not entry.startswith("-"), entry


def test_what_is_tested_is_what_runs() -> None:
    runtime, dev = map(names, LOCKS)
    assert runtime.items() <= dev.items()


@pytest.mark.parametrize("script", ["requirements/licences.py", "deploy/prometheus_rule.py"])
def test_what_is_made_from_other_files_is_up_to_date(script: str) -> None:
    command = [sys.executable, str(ROOT / script), "--check"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 0, f"make generated\n{told.stdout}{told.stderr}"


@pytest.mark.parametrize(
    ("expression", "outside"),
    [
        ("MIT", set()),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", set()),
        ("GPL-3.0-only", {"GPL-3.0-only"}),
        ("LGPL-2.1-or-later OR MIT", {"LGPL-2.1-or-later"}),
        ("MIT AND AGPL-3.0-only", {"AGPL-3.0-only"}),
        ("BUSL-1.1", {"BUSL-1.1"}),
        ("", {"no licence"}),
    ],
)
def test_licences_that_ask_for_more_are_refused(expression: str, outside: set[str]) -> None:
    assert runpy.run_path(str(LICENCES))["outside"](expression) == outside


def test_the_bill_of_materials_lists_every_locked_package(tmp_path: Path) -> None:
    (command,) = re.findall(r"(-m cyclonedx_py .*\\\n.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = command.replace("\\\n", " ").replace("dist/", f"{tmp_path}/").split()
    subprocess.run([sys.executable, "-W", "ignore", *words], cwd=ROOT, timeout=60, check=True)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "chatkit-mint"
    listed = {each["name"]: each["version"] for each in bill["components"]}
    assert listed == names(LOCKS[0])
    for each in bill["components"]:
        hashes = [hashed["alg"] for reference in each["externalReferences"] for hashed in reference.get("hashes", [])]
        assert "SHA-256" in hashes, each["name"]
