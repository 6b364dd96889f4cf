"""The commands that run until they are stopped: dev, serve, authority."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.app import create_app
from service.cli.base import DEV_DIR, Directory, app, run_until_stopped, settings_of
from service.cli.serving import REDIS_OPTION, bound, serve_app, serve_with_workers, tell
from service.settings import MAX_WORKERS, Settings
from service.store.private import with_redis
from service.upstream.authority.faults import KNOWN, parse_faults


@app.command("dev")
def dev(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the service.")] = 8080,
    ops_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the operations listener.")] = 9464,
    idp_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the development identity provider.")] = 8081,
    demo_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the demo page.")] = 8082,
    directory: Directory = DEV_DIR,
) -> None:
    """Start everything on this machine: service, identity provider, session authority, Redis, and a demo page."""
    from service.dev.run import DevPorts, run_dev

    settings = settings_of(log_format="console")
    run_until_stopped(run_dev(settings, os.environ, directory, DevPorts(port, ops_port, idp_port, demo_port)))


@app.command("serve")
def serve_command(
    workers: Annotated[
        int | None, typer.Option(min=1, max=MAX_WORKERS, help="Processes. Default: CHATKIT_MINT_WORKERS, or 1.")
    ] = None,
) -> None:
    """Start the service, as the environment configures it."""
    settings = settings_of()
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    if settings.workers > 1:
        serve_with_workers(settings)
    else:
        run_until_stopped(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with with_redis(settings.redis_url, settings.redis_dir, option=REDIS_OPTION) as redis_url:
        public_app = create_app(settings.model_copy(update={"redis_url": redis_url}), os.environ)
        sockets = bound(settings)
        await serve_app(public_app, sockets, settings, ready=lambda: tell(sockets, settings))


@app.command("authority")
def authority(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where it listens, on loopback.")] = 8090,
    fault: Annotated[list[str] | None, typer.Option(help=f"NAME=VALUE, several times: {', '.join(KNOWN)}.")] = None,
    workflow: Annotated[list[str] | None, typer.Option(help="A workflow id that exists; default: every one.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where its private Redis lives.")] = Path("var/authority"),
) -> None:
    """Start our own session authority: ChatKit's create and cancel, for tests and for what runs without OpenAI."""
    from service.dev.authority import run_authority

    settings = settings_of(log_format="console")
    try:
        faults = parse_faults(fault or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    run_until_stopped(run_authority(settings, directory, port, faults, frozenset(workflow) if workflow else None))
