"""The commands for who runs the service: what is asked of a running one."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from service.cli import remote
from service.cli.base import app, fail, settings_of
from service.settings import Settings


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
        fail(f"this ends every session and login of {tenant}; say --yes")
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
        command(settings_of())
    except remote.Failed as failed:
        fail(str(failed))
