"""What `serve` does, in one process or in several."""

import gc
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import typer
from pydantic import SecretStr
from starlette.applications import Starlette

from service.app import create_app
from service.cli.base import fail, run_until_stopped
from service.configured import defaults_of
from service.observe.family import join, make_place
from service.observe.logs import output
from service.observe.metrics import Metrics
from service.policy.load import PolicyError, load_policies
from service.serve import READY, Listener, PortTaken, bind, serve, url_of
from service.server import LINGER
from service.settings import Settings
from service.store.private import NoRedis
from service.workers.redis import kept_redis
from service.workers.supervise import Supervisor

REDIS_OPTION: Final = "set CHATKIT_MINT_REDIS_DIR, or CHATKIT_MINT_REDIS_URL to a Redis of your own"
MARGIN: Final = 15.0
"""Seconds, beyond all that a worker may wait for at its end, after which it is killed."""
PARENT: Final = "parent"


class Sockets(NamedTuple):
    """Where the service listens."""

    public: socket.socket
    operations: socket.socket


def bound(settings: Settings) -> Sockets:
    """Bind; raise `PortTaken`."""
    public = bind(settings.host, settings.port, option="CHATKIT_MINT_PORT")
    return Sockets(public, bind(settings.ops_host, settings.ops_port, option="CHATKIT_MINT_OPS_PORT"))


def tell(sockets: Sockets, settings: Settings) -> None:
    """Say in the log where the service answers."""
    redis = "the configured one" if settings.redis_url else f"a private one in {settings.redis_dir}"
    structlog.get_logger().info(
        "listening", public=url_of(sockets.public), operations=url_of(sockets.operations), redis=redis
    )


async def serve_app(
    public_app: Starlette,
    sockets: Sockets,
    settings: Settings,
    *,
    ready: Callable[[], None],
    parent: socket.socket | None = None,
) -> None:
    """Serve the public app and its operations app until told to stop."""
    proxies = tuple(settings.trusted_proxy_list)
    try:
        await serve(
            [
                Listener(public_app, sockets.public, lifespan=True, trusted_proxies=proxies),
                Listener(public_app.state.operations, sockets.operations, lifespan=False),
            ],
            grace=settings.shutdown_grace,
            delay=settings.shutdown_delay,
            ready=ready,
            draining=public_app.state.control.drain,
            reload=public_app.state.control.reload,
            parent=parent,
        )
    finally:
        public_app.state.control.finish()


def serve_with_workers(settings: Settings) -> None:
    """Serve in several processes until told to stop; what keeps them from starting is told once."""
    output().at_once = True
    try:
        load_policies(settings.config_dir, defaults_of(settings, os.environ))
        with ExitStack() as stack:
            sockets = bound(settings)
            family = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatkit-mint-metrics-")))
            vital, redis_url = None, settings.redis_url
            if redis_url is None:
                url, vital = stack.enter_context(kept_redis(settings.redis_dir, option=REDIS_OPTION, closing=sockets))
                redis_url = SecretStr(url)
            metrics = _count_in(family, settings.workers)
            configured = settings.model_copy(update={"redis_url": redis_url})

            def replaced(place: int, how: str) -> None:
                try:
                    metrics.worker_restarts.labels(how).inc()
                    make_place(family, str(place))
                except OSError as error:  # a full disk must not take those along who still serve
                    structlog.get_logger().error("metrics_not_begun_anew", place=place, reason=error.strerror)

            supervisor = Supervisor(
                lambda place, channel: _work(configured, sockets, family, place, channel),
                count=settings.workers,
                listening=sockets,
                patience=longest_end(settings),
                replaced=replaced,
                vital=vital,
            )
            gc.collect()
            gc.freeze()  # else the first collection in each worker copies what it could share
            well = supervisor.run(lambda: tell(sockets, settings))
    except (PolicyError, PortTaken, NoRedis, RuntimeError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    raise typer.Exit(0 if well else 1)


def longest_end(settings: Settings) -> float:
    """Return how long a process may take to end, in seconds: whoever kills it sooner cuts something off."""
    return settings.shutdown_delay + settings.shutdown_grace + settings.upstream_deadline + LINGER + MARGIN


def _count_in(family: Path, workers: int) -> Metrics:
    """Make a place for each process, and return the parent's own metrics."""
    for member in (PARENT, *map(str, range(workers))):
        make_place(family, member)
    join(family, PARENT, os.environ)
    return Metrics(family)


def _work(settings: Settings, sockets: Sockets, family: Path, place: int, parent: socket.socket) -> int:
    """Be one of the workers; return the exit code."""
    join(family, str(place), os.environ)
    try:
        run_until_stopped(
            _serve_as_worker(settings, sockets, Metrics(family, tenants=settings.metrics_tenants), parent)
        )
    except typer.Exit as ended:
        return ended.exit_code
    return 0


async def _serve_as_worker(settings: Settings, sockets: Sockets, metrics: Metrics, parent: socket.socket) -> None:
    public_app = create_app(settings, os.environ, metrics=metrics)
    parent.setblocking(False)
    await serve_app(public_app, sockets, settings, ready=lambda: parent.sendall(READY), parent=parent)
