"""`chatkit-mint authority`: our own session authority behind a port, in the place of OpenAI's endpoint."""

from pathlib import Path

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from chatkit_sessions.redis import RedisVerifier
from service.errors import Refusal
from service.http.problems import answer_error
from service.http.verify import VerifyApi
from service.serve import listen, serve
from service.settings import Settings
from service.store.connect import connect
from service.store.private import with_redis
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.faults import Faults
from service.upstream.authority.keys import Keyring
from service.upstream.authority.sessions import Authority


async def run_authority(
    settings: Settings, directory: Path, port: int, faults: Faults, workflows: frozenset[str] | None
) -> None:
    """Run until Ctrl-C. Raises `PortTaken` or `NoRedis`, each with a text that says what to do."""
    async with with_redis(settings.redis_url, directory / "redis") as url:
        redis = connect(url.get_secret_value(), timeout=settings.redis_timeout, connections=settings.redis_connections)
        app = create_authority_app(Authority(redis), workflows=workflows, faults=faults)
        verify_routes(app, redis, settings.redis_timeout)
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


def verify_routes(app: Starlette, redis: Redis, deadline: float) -> None:
    """Let whoever holds an API key verify the sessions that were issued with it, as the public listener does."""
    keyring = Keyring()
    api = VerifyApi(RedisVerifier(redis, deadline=deadline), lambda request: [keyring.project(request.headers)])
    app.router.routes.extend(api.routes())
    app.add_exception_handler(Refusal, _refuse)


async def _refuse(request: Request, refusal: Exception) -> Response:
    return answer_error(refusal, request)


def _nothing() -> None:
    """Have nothing to drain and nothing to read again."""


def _welcome(url: str) -> None:
    print(f"The session authority is ready. Its base URL for SDKs and tenants: {url}/v1", flush=True)
