"""`chatkit-mint dev`: Redis, identity provider, authority and service, in one process and on loopback."""

import secrets
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from service.app import create_app
from service.dev.demo import Demo
from service.dev.identity_provider import IdentityProvider
from service.dev.transport import DevTransport
from service.http.assets import browser_module
from service.observe.metrics import Metrics
from service.serve import Listener, bind, listen, serve, url_of
from service.settings import Settings
from service.store.connect import RedisGuard, connect
from service.store.pipeline import Pipeline
from service.store.private import with_redis
from service.store.sessions import SessionStore
from service.transport import make_transport
from service.upstream.authority.sessions import Authority

LOOPBACK: Final = "127.0.0.1"
ADMIN_KEY: Final = "admin.key"
"""The file, in the development directory, that holds the key to the admin routes."""
VISITOR_KEY: Final = "visitors.key"
"""The one that holds what signs visitors' cookies."""
DEMO_CONNECTIONS: Final = 4
"""To Redis, of the demo page's own."""


@dataclass(frozen=True, slots=True)
class DevPorts:
    """Where to listen; 0 lets the system choose."""

    public: int
    operations: int
    identity_provider: int
    demo: int


async def run_dev(settings: Settings, environ: Mapping[str, str], directory: Path, ports: DevPorts) -> None:
    """Run everything until Ctrl-C.

    Raises `PolicyError`, `PortTaken` or `NoRedis`, each with a text that says what to do.
    """
    try:
        provider = IdentityProvider(directory)
        keys = {
            "admin_key": settings.admin_key or _own_key(directory / ADMIN_KEY),
            "visitor_keys": settings.visitor_keys or _own_key(directory / VISITOR_KEY),
        }
    except OSError as error:
        raise OSError(f"can't keep keys in {directory}: {error.strerror}; choose another with --dir") from None
    identity = listen(provider.app(), LOOPBACK, ports.identity_provider, option="--idp-port")
    page = bind(LOOPBACK, ports.demo, option="--demo-port")
    metrics = Metrics(tenants=settings.metrics_tenants)
    async with with_redis(settings.redis_url, directory / "redis") as redis_url:
        app = create_app(
            settings.model_copy(update={"redis_url": redis_url, **keys}),
            environ,
            transport=DevTransport(make_transport(), identity.url),
            metrics=metrics,
            pages=[url_of(page)],
        )
        public = listen(app, LOOPBACK, ports.public, option="--port", lifespan=True)
        operations = listen(app.state.operations, LOOPBACK, ports.operations, option="--ops-port")
        redis = connect(redis_url.get_secret_value(), timeout=settings.redis_timeout, connections=DEMO_CONNECTIONS)
        guard = RedisGuard(Metrics(), deadline=settings.redis_timeout)
        demo = Demo(
            url_of(page),
            public.url,
            lambda: app.state.policies.current,
            provider,
            # What the page asks for is not the service's work, and in no metric of it.
            SessionStore(redis, guard, Pipeline(redis, guard)),
            Authority(redis),
            metrics,
            time.time,
        )
        try:
            await serve(
                [public, Listener(demo.app(), page, lifespan=False), operations, identity],
                grace=settings.shutdown_grace,
                ready=lambda: _welcome(demo.url, public.url, operations.url, identity.url, directory),
                draining=app.state.control.drain,
                reload=app.state.control.reload,
            )
        finally:
            await redis.aclose()


def _own_key(path: Path) -> SecretStr:
    """Return a key of the development directory, made on the first run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
    return SecretStr(path.read_text(encoding="utf-8").strip())


def _welcome(demo: str, public: str, operations: str, provider: str, directory: Path) -> None:
    module = browser_module()
    unpacked = Path(sys.argv[0]).name == "__main__.py"
    command = f"{shlex.quote(sys.executable)} -m service" if unpacked else shlex.quote(sys.argv[0])
    where = "" if directory == Path("var/dev") else f" --dir {shlex.quote(str(directory))}"
    print(
        f"""
chatkit-mint is ready. Stop it with Ctrl-C. Open the demo page:

  {demo}

  service             {public}
  operations          {operations}/metrics  {operations}/readyz
  identity provider   {provider}/.well-known/openid-configuration
  browser module      {public}{module.path}
                      integrity="{module.integrity}"

Sign in as somebody, mint, log out (in another terminal, in this directory):

  TOKEN=$({command} token{where} --tenant acme --user alice --claim plan=pro)
  curl -sS -X POST {public}/v1/chatkit/sessions -H "Authorization: Bearer $TOKEN"
  curl -sS -X POST {public}/v1/logout -H "Authorization: Bearer $TOKEN"

Look at it as an operator; then end every session of the tenant, and let it in again:

  export CHATKIT_MINT_ADMIN_KEY_FILE={shlex.quote(str(directory / ADMIN_KEY))}
  {command} sessions --tenant acme --user alice --url {operations}
  {command} revoke --tenant acme --yes --url {operations}
  {command} unblock --tenant acme --url {operations}
""",
        flush=True,
    )
