"""The schema in `config/schema/` is the one of this code, and agrees with what the loader accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from service.policy.schema import tenant_schema

CONFIG = Path(__file__).parents[3] / "config"
VALIDATOR = Draft202012Validator(tenant_schema())
EXAMPLES = sorted([*CONFIG.glob("t*/*.yaml")])


def test_the_committed_schema_is_this_codes() -> None:
    """Renew it with `chatkit-mint schema > config/schema/tenant.schema.json`."""
    assert json.loads((CONFIG / "schema" / "tenant.schema.json").read_text()) == tenant_schema()


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(tenant_schema())


@pytest.mark.parametrize("path", [p for p in EXAMPLES if not p.name.endswith(".test.yaml")], ids=lambda p: p.name)
def test_the_examples_are_valid_and_say_so_to_editors(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../schema/tenant.schema.json\n")
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "Acme"},
        {"tenat": "acme"},
        {"session": {"workflw": {}}},
        {"session": {"expires_after": {"seconds": 900}}},
        {"session": {"user": "alice"}},
        {"rules": [{"name": "a", "when": "true", "session": {"workflow": {"idd": "x"}}}]},
        {"client_may": {"workflow.id": "wf"}},
        {"quota": {"mints": ["often"]}},
        {"upstream": {"api_key": "sk-literal"}},
        {"visitors": {"origins": ["app.example.com"]}},
    ],
)
def test_what_the_loader_refuses_the_editor_marks(wrong: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"extends": "standard"},
        {"session": {"expires_after": {"seconds": "${claims.minutes * 60}"}}},
        {"session": {"workflow": {"id": "wf", "state_variables": {"a": "${claims.a}", "b": 1, "c": True}}}},
        {"client_may": {"workflow.id": ["a"], "rate_limits.max_requests_per_1_minute": {"max": 5}}},
        {"rollout": [{"name": "a", "split": [{"percent": 5, "session": {"workflow": {"version": "2"}}}]}]},
    ],
)
def test_what_the_loader_accepts_the_editor_does_not_mark(right: dict[str, Any]) -> None:
    VALIDATOR.validate(right)
