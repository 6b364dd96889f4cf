"""Tenant files written as text: the place of a mistake is part of what is promised."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from service.identity.jwk import jwks_problem
from service.policy.load import PolicyError, load_policies
from service.policy.outside import Defaults
from service.policy.tenant import Policies, Tenant

ACME = """\
tenant: acme
identity:
  - issuer: https://login.example/
    audience: app
    algorithms: [ES256]
upstream:
  kind: authority
session:
  workflow:
    id: wf_support
"""


@pytest.fixture
def acme() -> str:
    """The smallest tenant file, ten lines long."""
    return ACME


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Policies]:
    """Write the files, by name (`acme`, or `templates/base`), and load them."""

    def loaded(
        files: str | Mapping[str, str],
        *,
        environ: Mapping[str, str] | None = None,
        key: str | None = "sk-default",
        base_url: str = "https://api.openai.com/v1",
        visitor_keys: bool = True,
    ) -> Policies:
        for name, text in ({"acme": files} if isinstance(files, str) else files).items():
            path = tmp_path / (f"{name}.yaml" if "/" in name else f"tenants/{name}.yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        default_key = SecretStr(key) if key else None
        defaults = Defaults(environ or {}, default_key, base_url, jwks_problem, visitor_keys=visitor_keys)
        return load_policies(tmp_path, defaults)

    return loaded


@pytest.fixture
def mistakes(load: Callable[..., Policies], tmp_path: Path) -> Callable[..., list[str]]:
    """Write the files and return what is wrong with them: `tenants/acme.yaml:3:5: …`."""

    def mistaken(files: str | Mapping[str, str], **options: object) -> list[str]:
        with pytest.raises(PolicyError) as error:
            load(files, **options)
        assert str(error.value) == "\n".join(map(str, error.value.mistakes))
        return [str(mistake).removeprefix(f"{tmp_path}/") for mistake in error.value.mistakes]

    return mistaken


@pytest.fixture
def policy(load: Callable[..., Policies]) -> Callable[..., Tenant]:
    """Tenant `acme` with these sections added to the smallest file."""

    def compiled(environ: Mapping[str, str] | None = None, **sections: Any) -> Tenant:
        text = yaml.safe_dump({**yaml.safe_load(ACME), **sections}, sort_keys=False)
        return load(text, environ=environ).tenants["acme"]

    return compiled
