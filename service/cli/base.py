"""What all commands share: the application, settings, tenant files, and how a command fails: in one line."""

import dataclasses
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from service import __version__
from service.configured import defaults_of
from service.observe.logs import configure_logs
from service.policy.load import PolicyError, load_policies
from service.policy.outside import Defaults
from service.policy.tenant import Tenant
from service.serve import PortTaken
from service.settings import Settings, SettingsError, load_settings
from service.store.private import NoRedis

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PROGRAM = "chatkit-mint"
DEV_DIR = Path("var/dev")
Directory = Annotated[Path, typer.Option("--dir", help="Where the development state is kept.")]


@app.callback()
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Run the session service between your app and ChatKit, and look after it."""
    if version:
        print(f"chatkit-mint {__version__}")
        raise typer.Exit


def run() -> NoReturn:
    """Run the command that the arguments name, and end the process. What is wrong is told without a traceback."""
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        # Typer's own telling is a box of six lines, in which the message breaks at column 80.
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        if message := " ".join(error.format_message().split()):
            typer.echo(f"{command}: {message}{'' if message[-1] in '.?' else '.'} Usage: {command} --help", err=True)
        code = error.exit_code
    except typer.Abort:
        typer.echo("stopped; nothing was done", err=True)
        code = 1
    except OSError as error:  # a full disk, a directory of somebody else's
        named = f"{error.filename}: " if error.filename else ""
        typer.echo(f"{named}{error.strerror or type(error).__name__}", err=True)
        code = 1
    sys.exit(code)


def settings_of(**defaults: str) -> Settings:
    """Read the environment and set the logs up; *defaults* hold where it says nothing."""
    try:
        settings = load_settings(os.environ, **defaults)
    except SettingsError as error:
        fail(str(error))
    configure_logs(settings.log_level, settings.log_format)
    return settings


def tenant_named(name: str) -> Tenant:
    """Return a tenant for a command that neither signs nor sends anything: other secrets need not be at hand."""
    settings = settings_of()
    try:
        policies = load_policies(settings.config_dir, defaults_without_keys(settings, secrets_needed=False))
    except PolicyError as error:
        fail(str(error))
    if name not in policies.tenants:
        fail(f"there is no tenant {name!r}; there are: {', '.join(sorted(policies.tenants))}")
    return policies.tenants[name]


def defaults_without_keys(settings: Settings, *, secrets_needed: bool = True) -> Defaults:
    """Whether visitors' cookies can be signed is a running service's matter, not the files'."""
    defaults = defaults_of(settings, os.environ)
    return dataclasses.replace(defaults, visitor_keys=True, secrets_needed=secrets_needed)


def run_until_stopped(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a server; what keeps it from starting is told without a traceback."""
    try:
        uvloop.run(coroutine)
    except (PolicyError, PortTaken, NoRedis, RuntimeError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)
