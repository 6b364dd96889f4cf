"""Tenant files for tests, written as an operator would."""

from pathlib import Path
from typing import Any

import yaml


def tenant_file(name: str, identity: dict[str, Any] | list[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    """A tenant of our own authority with one workflow; *sections* replace or add top-level keys."""
    return {
        "tenant": name,
        "identity": identity if isinstance(identity, list) else [identity],
        "upstream": {"kind": "authority"},
        "session": {"workflow": {"id": f"wf_{name}"}},
        **sections,
    }


def write_config(directory: Path, *tenants: dict[str, Any], **templates: dict[str, Any]) -> Path:
    """Write `tenants/` and `templates/` below *directory* and return it."""
    for folder, files in (
        ("tenants", {tenant["tenant"]: tenant for tenant in tenants}),
        ("templates", templates),
    ):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return directory
