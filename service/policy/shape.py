"""What every part of a tenant file is made of: strict shapes, names, and where a secret is."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

TENANT_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
ORIGIN = r"^(https://[a-z0-9.-]+(:[0-9]{1,5})?|http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?)$"

TenantName = Annotated[str, StringConstraints(pattern=TENANT_NAME)]
"""Safe as a metric label, a Redis key and a path segment."""
Text = Annotated[str, Field(min_length=1, max_length=2048)]
Rate = Annotated[str, StringConstraints(pattern=RATE)]
"""`10/minute`."""
FileName = Annotated[Path, Field(strict=False)]
Origin = Annotated[str, StringConstraints(pattern=ORIGIN)]
"""Exactly as a browser sends it: `https://app.example.com`; http only on loopback."""
Origins = Annotated[list[Origin], Field(min_length=1)]


class Shape(BaseModel):
    """No unknown key, no coercion, no value repeated in an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class SecretRef(Shape):
    """Where a secret is: `{env: NAME}` or `{file: PATH}`. Never the secret itself."""

    env: Text | None = None
    file: FileName | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_literal(cls, given: object) -> object:
        if not isinstance(given, dict):
            raise ValueError("a secret is never written into the file; use {env: NAME} or {file: PATH}")  # noqa: TRY004
        return given

    @field_validator("env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("names an environment variable, not the secret itself")  # its value is not repeated
        return name

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if (self.env is None) == (self.file is None):
            raise ValueError("name the secret by one of {env: NAME} or {file: PATH}")
        return self
