"""Programs of others that some tests put questions to, and settings as a deployment file gives them."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.settings import Settings, load_settings

OPTIONAL = "optional checker: "
"""How the reason of a skip begins that is none in CI either: what it checks is no part of the service."""

SECRETS = {"redis": "redis://:not-a-secret@redis.example:6379", "": "x" * 48}


def checker(*names: str) -> str:
    """The path of the first of these programs that is here; else the test is skipped."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    pytest.skip(f"{OPTIONAL}{' or '.join(names)} is not installed")


def settings_given(environ: Mapping[str, str], folder: Path) -> Settings:
    """Settings as the service would read them, each secret's file in its place. Raises `SettingsError`."""
    here: dict[str, str] = {}
    for name, value in environ.items():
        if name.endswith("_FILE"):
            file = folder / Path(value).name
            file.write_text(SECRETS["redis" if "REDIS" in name else ""])
            value = str(file)  # noqa: PLW2901
        here[name] = value
    return load_settings(here)
