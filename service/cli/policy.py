"""The commands about tenant files: check, explain, schema, token, service-key."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError

from service.cli.base import DEV_DIR, Directory, app, defaults_without_keys, fail, settings_of, tenant_named
from service.contract import WISH, dotted
from service.identity.service_keys import make_service_key
from service.policy.load import PolicyError, load_policies
from service.policy.source import Mistake
from service.policy.tenant import Policies


@app.command("check")
def check(
    directory: Annotated[Path | None, typer.Argument(help="Default: CHATKIT_MINT_CONFIG_DIR, else config.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check the tenant files and run their tests: every mistake in every file, with its place; and what is doubtful."""
    from service.policy.cases import run_cases
    from service.policy.doubts import doubts

    settings = settings_of()
    folder = directory or settings.config_dir
    tests, warnings, mistakes, policies = 0, list[str](), list[Mistake](), None
    try:
        policies = load_policies(folder, defaults_without_keys(settings))
    except PolicyError as error:
        mistakes = error.mistakes
    if policies:
        tests, mistakes = run_cases(folder, policies.tenants, now=time.time())
        warnings = doubts(policies.tenants)
    if as_json:
        tenants = {"tenants": sorted(policies.tenants), "version": policies.version} if policies else {}
        told = [dataclasses.asdict(mistake) for mistake in mistakes]
        print(
            orjson.dumps({"ok": not told, "mistakes": told, "warnings": warnings, "tests": tests, **tenants}).decode()
        )
    else:
        _print_check(folder, policies, tests, warnings, mistakes)
    raise typer.Exit(1 if mistakes else 0)


def _print_check(
    folder: Path, policies: Policies | None, tests: int, warnings: Sequence[str], mistakes: Sequence[Mistake]
) -> None:
    for mistake in mistakes:
        print(mistake)
    for warning in warnings:
        print(f"warning: {warning}")
    if mistakes:
        what = "a test of the policy fails" if policies else "nothing would be loaded"
        print(f"\n{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}; {what}.")
    elif policies:
        tested = f" {tests} test{'s' if tests > 1 else ''} passed." if tests else ""
        print(f"{folder}: fine. Tenants: {', '.join(sorted(policies.tenants))}.{tested}")


@app.command("explain")
def explain_command(
    tenant: Annotated[str, typer.Option(help="The tenant that decides.")],
    claims: Annotated[
        typer.FileText, typer.Option(help="The token's claims as JSON: a file, or - for standard input.")
    ],
    request: Annotated[
        typer.FileText | None, typer.Option(help="The create body that the caller sends, as JSON.")
    ] = None,
    visitor: Annotated[bool, typer.Option("--visitor", help="Somebody who is not logged in.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell what a caller gets and which layer set each value; for a denial, why. Exit code 1 where denied."""
    from service.policy.explain import as_table, explain

    chosen = tenant_named(tenant)
    try:
        wishes = WISH.validate_python(_json_object(request, "--request") if request else {})
        told = explain(chosen, _json_object(claims, "--claims"), wishes, visitor=visitor)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        fail(f"--request: {dotted(first['loc'])}: {first['msg']}")
    except ValueError as error:
        fail(str(error))
    print(orjson.dumps(told.as_json()).decode() if as_json else as_table(told))
    raise typer.Exit(0 if told.granted else 1)


def _json_object(file: typer.FileText, option: str) -> dict[str, Any]:
    try:
        value = orjson.loads(file.read())
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint=option)
    return value


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of tenant files, for editors; `config/schema/` holds it."""
    from service.policy.schema import tenant_schema

    print(orjson.dumps(tenant_schema(), option=orjson.OPT_INDENT_2).decode())


@app.command("token")
def token(
    tenant: Annotated[str, typer.Option(help="A tenant that trusts the development identity provider.")],
    user: Annotated[str, typer.Option(help="The subject.")],
    claim: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, repeatable; JSON keeps its type.")] = None,
    directory: Directory = DEV_DIR,
) -> None:
    """Print a token of the development identity provider: a new login of that user."""
    from service.dev.identity_provider import ISSUER, IdentityProvider, NoKey

    chosen = tenant_named(tenant)
    trusts = [trust for trust in chosen.trusts if trust.issuer == ISSUER and trust.audiences]
    if not trusts:
        issuers = ", ".join(sorted({trust.issuer for trust in chosen.trusts})) or "no issuer"
        fail(f"tenant {tenant!r} trusts {issuers}, not the development identity provider: add {ISSUER} to `identity`")
    claims = dict(_claim(each) for each in claim or [])
    try:
        provider = IdentityProvider(directory)
    except OSError as error:
        fail(f"can't keep the signing key in {directory}: {error.strerror}; choose another with --dir, as for `dev`")
    except NoKey as error:
        fail(str(error))
    print(provider.token(min(trusts[0].audiences), user, claims))


def _claim(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--claim")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


@app.command("service-key")
def service_key(
    name: Annotated[str, typer.Option(help="How logs call it: the server that will hold it.")] = "app-server",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Make a key for a server that acts for a tenant: the key for the server, its hash for the tenant file."""
    key, digest = make_service_key()
    if as_json:
        print(orjson.dumps({"name": name, "key": key, "sha256": digest}).decode())
        return
    print("# Into the tenant file; `may` takes logout, read, verify, or several:\nservice_keys:")
    print(f"  - {{name: {orjson.dumps(name).decode()}, sha256: {digest}, may: [logout]}}")
    print(f"\n# Into that server's secrets; it is shown only now:\n{key}")
