"""The service and the example server, each on a port, and people who come to both."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from server import create_app
from stores import Files, SqliteStore

from authority.parts import KEY, on_a_port
from chatkit_sessions import SessionMiddleware, VerifiedSession, Verifier
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.redis import RedisVerifier
from selfhosted.full import Full
from selfhosted.parts import SIGNERS, Person, mint_app

Someone = Callable[..., Awaitable[Person]]


@dataclass
class House:
    """What runs, and where."""

    mint: httpx2.AsyncClient
    chat: httpx2.AsyncClient
    server: Full
    folder: Path
    verifier: Verifier

    async def someone(self, tenant: str = "acme", subject: str = "alice", plan: str = "") -> Person:
        return await Person(self.mint, self.chat, SIGNERS[tenant], subject, plan).arrive()

    async def session(self, person: Person) -> VerifiedSession:
        """A person's session, as the server has it."""
        return await self.verifier.verify(person.session["client_secret"])


@pytest.fixture
async def mint_url(redis: Redis, tmp_path: Path) -> AsyncIterator[str]:
    async with on_a_port(mint_app(tmp_path / "config", redis)) as url:
        yield url


@pytest.fixture(params=["redis"])
async def verifier(request: pytest.FixtureRequest, redis: Redis, mint_url: str) -> AsyncIterator[Verifier]:
    """In process, unless the test asks for both."""
    verifier: Verifier = RedisVerifier(redis) if request.param == "redis" else HTTPVerifier(mint_url, KEY)
    yield verifier
    await verifier.aclose()


@pytest.fixture
async def house(mint_url: str, verifier: Verifier, tmp_path: Path) -> AsyncIterator[House]:
    store, files = SqliteStore(":memory:"), Files(tmp_path, "http://chat.example/upload")
    server = Full(store, files, verifier=verifier, session_of=lambda session: session)
    app = SessionMiddleware(create_app(server, files), verifier, open_paths=["/"], upload_paths=["/upload"])
    async with (
        on_a_port(app, "off") as url,
        httpx2.AsyncClient(base_url=url, timeout=30) as chat,
        httpx2.AsyncClient(base_url=mint_url, timeout=30) as mint,
    ):
        yield House(mint, chat, server, tmp_path, verifier)
    store.close()


@pytest.fixture
def someone(house: House) -> Someone:
    """Log somebody in: (tenant, subject, plan)."""
    return house.someone
