"""Policy tests that operators write beside their tenants: `tenants/acme.test.yaml`, run by `check`.

tests:
  - name: pro users may upload
    claims: {sub: alice, plan: pro}
    grant: {chatkit_configuration: {file_upload: {enabled: true}}}   # these values, whatever else
  - name: suspended users get nothing
    claims: {sub: bob, suspended: true}
    deny: policy_denied
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from service.contract import WISH, dotted, flatten
from service.policy.explain import explain
from service.policy.shape import Shape, Text
from service.policy.source import Mistake, Source, SourceError, read_source
from service.policy.tenant import Tenant


class Case(Shape):
    """Somebody's claims and wishes, and what they shall get: some values of the grant, or a denial's code."""

    name: Text
    claims: dict[str, Any] = Field(default_factory=dict)
    request: dict[str, Any] = Field(default_factory=dict)
    visitor: bool = False
    grant: dict[str, Any] | None = None
    deny: Text | None = None

    @model_validator(mode="after")
    def _expects_one_thing(self) -> "Case":
        if (self.grant is None) == (self.deny is None):
            raise ValueError("a test expects one of `grant` or `deny`")
        return self


class CaseFile(Shape):
    """A file of tests."""

    tenant: Text | None = None
    """Whose tests these are; without it, the file's name says."""
    tests: Annotated[list[Case], Field(min_length=1)]


def run_cases(directory: Path, tenants: Mapping[str, Tenant], *, now: float) -> tuple[int, list[Mistake]]:
    """Run every `tenants/*.test.yaml`; return how many tests there are, and what failed, each with its place."""
    count, failures = 0, list[Mistake]()
    for path in sorted((directory / "tenants").glob("*.test.yaml")):
        try:
            source = read_source(path)
            file = CaseFile.model_validate(source.tree)
        except SourceError as error:
            failures.append(error.mistake)
            continue
        except ValidationError as error:
            failures += [_mistake(source, e["loc"], e["msg"]) for e in error.errors(include_input=False)]
            continue
        stem = path.name.removesuffix(".test.yaml")
        tenant = tenants.get(file.tenant or stem)
        if tenant is None:
            if not path.with_name(f"{stem}.yaml").exists() or file.tenant:
                failures.append(Mistake(source.file, 1, 1, "there is no tenant of this name; name it by `tenant:`"))
            continue  # its tenant is not enabled
        for index, case in enumerate(file.tests):
            count += 1
            failures += [
                _mistake(source, ("tests", index), f"{case.name!r}: {each}") for each in _failures(tenant, case, now)
            ]
    return count, failures


def _failures(tenant: Tenant, case: Case, now: float) -> list[str]:
    """Return what is other than expected; for a grant, a line a value."""
    try:
        told = explain(tenant, case.claims, WISH.validate_python(case.request), visitor=case.visitor, now=now)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        return [f"request: {dotted(first['loc'])}: {first['msg']}"]
    except ValueError as error:
        return [str(error)]
    if case.deny is not None:
        got = "granted" if told.granted else told.code
        return [] if got == case.deny else [f"expected {case.deny}, got {got}{_why(told.reason)}"]
    if not told.granted:
        return [f"expected a grant, got {told.code}{_why(told.reason)}"]
    given = {field.field: field for field in told.fields}
    differing = []
    for path, expected in flatten(case.grant or {}).items():
        field = given.get(dotted(path))
        if field is None:
            differing.append(f"{dotted(path)}: expected {expected!r}, is not set")
        elif type(field.value) is not type(expected) or field.value != expected:
            differing.append(f"{dotted(path)}: expected {expected!r}, got {field.value!r}, set by {field.set_by}")
    return differing


def _why(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _mistake(source: Source, route: tuple[str | int, ...], message: str) -> Mistake:
    while route and route not in source.places:
        route = route[:-1]
    return Mistake(source.file, *source.places[route], message.removeprefix("Value error, "))
