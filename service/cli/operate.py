"""The commands for who runs the service: doctor, and what is asked of a running one."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import orjson
import typer
import uvloop

from service.cli import remote
from service.cli.base import app, fail, settings_of
from service.configured import defaults_of
from service.policy.load import PolicyError, load_policies
from service.policy.tenant import Policies
from service.settings import Settings


@app.command("doctor")
def doctor(
    tenant: Annotated[str | None, typer.Option(help="Examine this one alone.")] = None,
    mint: Annotated[bool, typer.Option(help="Try each workflow with a session of one second.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one line a finding.")] = False,
) -> None:
    """Try what a service with this environment needs: Redis, issuers' keys, and every tenant's upstream."""
    settings = settings_of(log_level="error")
    try:
        policies = load_policies(settings.config_dir, defaults_of(settings, os.environ))
    except PolicyError as error:
        fail(f"{error}\n\nThe tenant files come first: chatkit-mint check {settings.config_dir}")
    if tenant is not None and tenant not in policies.tenants:
        fail(f"there is no tenant {tenant!r}; there are: {', '.join(sorted(policies.tenants))}")
    wrong = uvloop.run(_examine(settings, policies, tenant, mint=mint, as_json=as_json))
    raise typer.Exit(1 if wrong else 0)


async def _examine(settings: Settings, policies: Policies, tenant: str | None, *, mint: bool, as_json: bool) -> int:
    """Print each finding as it is made; return how many things are wrong."""
    from service.doctor.examine import examine
    from service.doctor.findings import Verdict

    counts = Counter[str]()
    async for finding in examine(settings, policies, only=tenant, mint=mint):
        counts[finding.verdict] += 1
        print(orjson.dumps(finding.as_json()).decode() if as_json else finding, flush=True)
    if not as_json:
        told = ", ".join(f"{counts[each]} {each}" for each in Verdict)
        print(f"\n{told}.")
    return counts[Verdict.WRONG]


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
