"""`chatkit-mint authority`: our own session authority behind a port, in the place of OpenAI's endpoint."""

from pathlib import Path

from service.serve import listen, serve
from service.settings import Settings
from service.store.connect import connect
from service.store.private import with_redis
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.faults import Faults
from service.upstream.authority.sessions import Authority


async def run_authority(
    settings: Settings, directory: Path, port: int, faults: Faults, workflows: frozenset[str] | None
) -> None:
    """Run until Ctrl-C. Raises `PortTaken` or `NoRedis`, each with a text that says what to do."""
    async with with_redis(settings.redis_url, directory / "redis") as url:
        redis = connect(url.get_secret_value(), timeout=settings.redis_timeout, connections=settings.redis_connections)
        app = create_authority_app(Authority(redis), workflows=workflows, faults=faults)
        listener = listen(app, "127.0.0.1", port, option="--port")
        try:
            await serve(
                [listener],
                grace=settings.shutdown_grace,
                ready=lambda: _welcome(listener.url),
                draining=_nothing,
                reload=_nothing,
            )
        finally:
            await redis.aclose()


def _nothing() -> None:
    """Have nothing to drain and nothing to read again."""


def _welcome(url: str) -> None:
    print(f"The session authority is ready. Its base URL for SDKs and tenants: {url}/v1", flush=True)
