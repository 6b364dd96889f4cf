"""The commands that run until they are stopped: dev, serve, authority."""

import os
from pathlib import Path
from typing import Annotated

import structlog
import typer

from service.app import create_app
from service.cli.base import DEV_DIR, Directory, app, run_until_stopped, settings_of
from service.dev.authority import run_authority
from service.dev.run import DevPorts, run_dev
from service.serve import listen, serve
from service.settings import Settings
from service.store.private import with_redis
from service.upstream.authority.faults import KNOWN, parse_faults


@app.command("dev")
def dev(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the service.")] = 8080,
    ops_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the operations listener.")] = 9464,
    idp_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the development identity provider.")] = 8081,
    directory: Directory = DEV_DIR,
) -> None:
    """Start everything on this machine: service, identity provider, session authority, Redis."""
    settings = settings_of(log_format="console")
    run_until_stopped(run_dev(settings, os.environ, directory, DevPorts(port, ops_port, idp_port)))


@app.command("serve")
def serve_command() -> None:
    """Start the service, as the environment configures it."""
    run_until_stopped(_serve(settings_of()))


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


@app.command("authority")
def authority(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where it listens, on loopback.")] = 8090,
    fault: Annotated[list[str] | None, typer.Option(help=f"NAME=VALUE, several times: {', '.join(KNOWN)}.")] = None,
    workflow: Annotated[list[str] | None, typer.Option(help="A workflow id that exists; default: every one.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where its private Redis lives.")] = Path("var/authority"),
) -> None:
    """Start our own session authority: ChatKit's create and cancel, for tests and for what runs without OpenAI."""
    settings = settings_of(log_format="console")
    try:
        faults = parse_faults(fault or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    run_until_stopped(run_authority(settings, directory, port, faults, frozenset(workflow) if workflow else None))
