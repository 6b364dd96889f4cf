"""`chatkit-mint dev`: Redis, identity provider, authority and service, in one process and on loopback."""

import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from service.app import create_app
from service.dev.identity_provider import IdentityProvider
from service.dev.transport import DevTransport
from service.http.assets import browser_module
from service.serve import listen, serve
from service.settings import Settings
from service.store.private import with_redis
from service.transport import make_transport

LOOPBACK: Final = "127.0.0.1"
ADMIN_KEY: Final = "admin.key"
"""The file, in the development directory, that holds the key to the admin routes."""


@dataclass(frozen=True, slots=True)
class DevPorts:
    """Where to listen; 0 lets the system choose."""

    public: int
    operations: int
    identity_provider: int


async def run_dev(settings: Settings, environ: Mapping[str, str], directory: Path, ports: DevPorts) -> None:
    """Run everything until Ctrl-C.

    Raises `PolicyError`, `PortTaken` or `NoRedis`, each with a text that says what to do.
    """
    try:
        provider_app = IdentityProvider(directory).app()
        admin_key = settings.admin_key or _own_admin_key(directory)
    except OSError as error:
        raise OSError(f"can't keep keys in {directory}: {error.strerror}; choose another with --dir") from None
    provider = listen(provider_app, LOOPBACK, ports.identity_provider, option="--idp-port")
    async with with_redis(settings.redis_url, directory / "redis") as redis_url:
        app = create_app(
            settings.model_copy(update={"redis_url": redis_url, "admin_key": admin_key}),
            environ,
            transport=DevTransport(make_transport(), provider.url),
        )
        public = listen(app, LOOPBACK, ports.public, option="--port", lifespan=True)
        operations = listen(app.state.operations, LOOPBACK, ports.operations, option="--ops-port")
        await serve(
            [public, operations, provider],
            grace=settings.shutdown_grace,
            ready=lambda: _welcome(public.url, operations.url, provider.url, directory),
            draining=app.state.control.drain,
            reload=app.state.control.reload,
        )


def _own_admin_key(directory: Path) -> SecretStr:
    """Return the development admin key, made on the first run."""
    path = directory / ADMIN_KEY
    directory.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
    return SecretStr(path.read_text(encoding="utf-8").strip())


def _welcome(public: str, operations: str, provider: str, directory: Path) -> None:
    module = browser_module()
    unpacked = Path(sys.argv[0]).name == "__main__.py"
    command = f"{shlex.quote(sys.executable)} -m service" if unpacked else shlex.quote(sys.argv[0])
    where = "" if directory == Path("var/dev") else f" --dir {shlex.quote(str(directory))}"
    print(
        f"""
chatkit-mint is ready. Stop it with Ctrl-C.

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
