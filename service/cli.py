"""The `chatkit-mint` command. Exit codes: 0 fine, 1 the thing is wrong, 2 usage."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import structlog
import typer
import uvloop
from pydantic import ValidationError

from service import __version__, remote
from service.app import create_app, defaults_of
from service.contract import WISH, dotted
from service.dev.authority import run_authority
from service.dev.identity_provider import ISSUER, IdentityProvider
from service.dev.run import DevPorts, run_dev
from service.identity.service_keys import make_service_key
from service.observe.logs import configure_logs
from service.policy.cases import run_cases
from service.policy.doubts import doubts
from service.policy.explain import as_table, explain
from service.policy.load import PolicyError, load_policies
from service.policy.outside import Defaults
from service.policy.schema import tenant_schema
from service.policy.source import Mistake
from service.policy.tenant import Policies, Tenant
from service.serve import PortTaken, listen, serve
from service.settings import Settings, SettingsError, load_settings
from service.store.private import NoRedis, with_redis
from service.upstream.authority.faults import KNOWN, parse_faults

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Run the session service between your app and ChatKit, and look after it."""
    if version:
        print(f"chatkit-mint {__version__}")
        raise typer.Exit


DEV_DIR = Path("var/dev")
Directory = Annotated[Path, typer.Option("--dir", help="Where the development state is kept.")]


@app.command("dev")
def dev(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the service.")] = 8080,
    ops_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the operations listener.")] = 9464,
    idp_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the development identity provider.")] = 8081,
    directory: Directory = DEV_DIR,
) -> None:
    """Start everything on this machine: service, identity provider, session authority, Redis."""
    settings = _settings(log_format="console")
    _run(run_dev(settings, os.environ, directory, DevPorts(port, ops_port, idp_port)))


@app.command("serve")
def serve_command() -> None:
    """Start the service, as the environment configures it."""
    _run(_serve(_settings()))


async def _serve(settings: Settings) -> None:
    option = "set CHATKIT_MINT_REDIS_DIR, or CHATKIT_MINT_REDIS_URL to a Redis of your own"
    async with with_redis(settings.redis_url, settings.redis_dir, option=option) as redis_url:
        public_app = create_app(settings.model_copy(update={"redis_url": redis_url}), os.environ)
        public = listen(
            public_app,
            settings.host,
            settings.port,
            option="CHATKIT_MINT_PORT",
            lifespan=True,
            trusted_proxies=settings.trusted_proxy_list,
        )
        operations = listen(
            public_app.state.operations, settings.ops_host, settings.ops_port, option="CHATKIT_MINT_OPS_PORT"
        )
        await serve(
            [public, operations],
            grace=settings.shutdown_grace,
            ready=lambda: _tell(public.url, operations.url, settings),
            draining=public_app.state.control.drain,
            reload=public_app.state.control.reload,
        )


def _tell(public: str, operations: str, settings: Settings) -> None:
    redis = "the configured one" if settings.redis_url else f"a private one in {settings.redis_dir}"
    structlog.get_logger().info("listening", public=public, operations=operations, redis=redis)


@app.command("check")
def check(
    directory: Annotated[Path | None, typer.Argument(help="Default: CHATKIT_MINT_CONFIG_DIR, else config.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check the tenant files and run their tests: every mistake in every file, with its place; and what is doubtful."""
    settings = _settings()
    folder = directory or settings.config_dir
    tests, warnings, mistakes, policies = 0, list[str](), list[Mistake](), None
    try:
        policies = load_policies(folder, _defaults_without_keys(settings))
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


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of tenant files, for editors; `config/schema/` holds it."""
    print(orjson.dumps(tenant_schema(), option=orjson.OPT_INDENT_2).decode())


@app.command("token")
def token(
    tenant: Annotated[str, typer.Option(help="A tenant that trusts the development identity provider.")],
    user: Annotated[str, typer.Option(help="The subject.")],
    claim: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, repeatable; JSON keeps its type.")] = None,
    directory: Directory = DEV_DIR,
) -> None:
    """Print a token of the development identity provider: a new login of that user."""
    chosen = _tenant(tenant)
    trusts = [trust for trust in chosen.trusts if trust.issuer == ISSUER]
    if not trusts:
        issuers = ", ".join(sorted({trust.issuer for trust in chosen.trusts}))
        _fail(f"tenant {tenant!r} trusts {issuers}, not the development identity provider {ISSUER}")
    claims = dict(_claim(each) for each in claim or [])
    print(IdentityProvider(directory).token(min(trusts[0].audiences), user, claims))


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
    chosen = _tenant(tenant)
    try:
        wishes = WISH.validate_python(_json_object(request, "--request") if request else {})
        told = explain(chosen, _json_object(claims, "--claims"), wishes, visitor=visitor)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        _fail(f"--request: {dotted(first['loc'])}: {first['msg']}")
    except ValueError as error:
        _fail(str(error))
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
    print("# Into the tenant file; `may` takes logout, read, or both:\nservice_keys:")
    print(f"  - {{name: {orjson.dumps(name).decode()}, sha256: {digest}, may: [logout]}}")
    print(f"\n# Into that server's secrets; it is shown only now:\n{key}")


def _claim(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--claim")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


@app.command("sessions")
def sessions_command(
    tenant: remote.Tenant,
    user: Annotated[str | None, typer.Option(help="The subject; without one, how the whole tenant stands.")] = None,
    url: remote.Url = None,
    as_json: remote.Json = False,
) -> None:
    """List a user's live sessions, or tell how a tenant stands; asks the running service."""
    _ask(lambda settings: remote.sessions(settings, url, tenant, user, as_json=as_json))


@app.command("revoke")
def revoke_command(
    tenant: remote.Tenant,
    rate: Annotated[float | None, typer.Option(help="Cancels a second. Default: the service's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    wait: Annotated[bool, typer.Option(help="Tell how far it is until it is done.")] = True,
    url: remote.Url = None,
    as_json: remote.Json = False,
) -> None:
    """Block a tenant and cancel every session of it; asks the running service, which goes on also without you."""
    if not yes and not sys.stdin.isatty():
        _fail(f"this ends every session and login of {tenant}; say --yes")
    if not yes:
        typer.confirm(
            f"End every session and login of {tenant}, and let nobody in until `unblock`?", abort=True, err=True
        )
    _ask(lambda settings: remote.revoke(settings, url, tenant, rate, wait=wait, as_json=as_json))


@app.command("unblock")
def unblock_command(tenant: remote.Tenant, url: remote.Url = None, as_json: remote.Json = False) -> None:
    """Let new logins of a revoked tenant in again; asks the running service."""
    _ask(lambda settings: remote.unblock(settings, url, tenant, as_json=as_json))


def _ask(command: Callable[[Settings], None]) -> None:
    try:
        command(_settings())
    except remote.Failed as failed:
        _fail(str(failed))


@app.command("authority")
def authority(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where it listens, on loopback.")] = 8090,
    fault: Annotated[list[str] | None, typer.Option(help=f"NAME=VALUE, several times: {', '.join(KNOWN)}.")] = None,
    workflow: Annotated[list[str] | None, typer.Option(help="A workflow id that exists; default: every one.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where its private Redis lives.")] = Path("var/authority"),
) -> None:
    """Start our own session authority: ChatKit's create and cancel, for tests and for what runs without OpenAI."""
    settings = _settings(log_format="console")
    try:
        faults = parse_faults(fault or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    _run(run_authority(settings, directory, port, faults, frozenset(workflow) if workflow else None))


def _settings(**defaults: str) -> Settings:
    try:
        settings = load_settings(os.environ, **defaults)
    except SettingsError as error:
        _fail(str(error))
    configure_logs(settings.log_level, settings.log_format)
    return settings


def _tenant(name: str) -> Tenant:
    """Return a tenant for a command that neither signs nor sends anything: other secrets need not be at hand."""
    settings = _settings()
    try:
        policies = load_policies(settings.config_dir, _defaults_without_keys(settings, secrets_needed=False))
    except PolicyError as error:
        _fail(str(error))
    if name not in policies.tenants:
        _fail(f"there is no tenant {name!r}; there are: {', '.join(sorted(policies.tenants))}")
    return policies.tenants[name]


def _defaults_without_keys(settings: Settings, *, secrets_needed: bool = True) -> Defaults:
    """Whether visitors' cookies can be signed is a running service's matter, not the files'."""
    defaults = defaults_of(settings, os.environ)
    return dataclasses.replace(defaults, visitor_keys=True, secrets_needed=secrets_needed)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        uvloop.run(coroutine)
    except (PolicyError, PortTaken, NoRedis, RuntimeError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    app(prog_name="chatkit-mint")
