"""A real Chromium, the real service, and a front that pages come from."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from api.parts import SERVICE_DB, Issuer, RedisServer
from api.stack import Service, Upstream
from browser.front import Front
from support.processes import ROOT
from support.tenants import tenant_file, write_config

QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Chromium looks for nobody but the test's own servers."""
TOOLS = ROOT / "tests" / "browser"
SAME, OTHER = "same origin", "another origin"
"""Where a page can be from, beside the service. Most tests take the harder one."""


@dataclass(frozen=True)
class House:
    """Everything that a page can reach, and what a test looks at behind it."""

    front: Front
    pages: Front
    """Another origin, with pages alone."""
    service: Service
    issuer: Issuer
    upstream: Upstream

    def token(self, tenant: str, subject: str, **claims: Any) -> str:
        return self.issuer.token(tenant, subject, **claims)

    async def statuses(self, user: str) -> list[str]:
        """What became of a mapped user's sessions, by upstream's own record."""
        return [session["status"] for session in await asyncio.to_thread(self.upstream.of, user)]

    async def becomes(self, user: str, *statuses: str) -> None:
        async with asyncio.timeout(10):
            while await self.statuses(user) != list(statuses):  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("browser")
    redis, issuer, front, pages = RedisServer(home / "redis"), Issuer(), Front(), Front()
    origins = [front.url, pages.url]

    def tenant(name: str, seconds: int = 600, **sections: Any) -> dict[str, Any]:
        session = {"workflow": {"id": f"wf_{name}"}, "expires_after": {"seconds": seconds}}
        cors = {"origins": [*origins]}
        return tenant_file(name, issuer.identity(name), session=session, cors=cors, **sections)

    config = write_config(
        home / "config",
        tenant("acme"),
        tenant("brief", seconds=3),
        tenant("tight", quota={"mints": ["2/second"]}),
        tenant("closed", rules=[{"name": "all", "when": "true", "deny": "Your account is suspended."}]),
        tenant("guests", visitors={"origins": origins}),
    )
    service = Service(home / "log", config, redis.url(SERVICE_DB), CHATKIT_MINT_VISITOR_KEYS=secrets.token_hex(24))
    try:
        front.service = service.wait().url
        yield House(front, pages, service, issuer, Upstream(redis.url(SERVICE_DB)))
    finally:
        service.close()
        front.close()
        pages.close()
        issuer.close()
        redis.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    found = shutil.which("chromium")
    if not found:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        await browser.close()


CLIENT = """async ([base, tokens, options]) => {
  const { createClient } = await import(base + "/v1/client.js");
  window.renewals = [];
  const getAccessToken = ({ renew }) => {
    renewals.push(renew);
    return tokens.length > 1 ? tokens.shift() : tokens[0];
  };
  window.client = createClient(tokens.length ? { getAccessToken, ...options } : { visitor: true, ...options });
}"""
ERROR = """async (current) => {
  const error = await client.getClientSecret(current).then((secret) => new Error("got " + secret), (error) => error);
  return { ...error, message: error.message, error: error instanceof Error };
}"""


@dataclass
class Tab:
    """One page, with a client of the module in it."""

    house: House
    page: Page
    base: str
    errors: list[str] = field(default_factory=list)

    async def client(self, *tokens: str, **options: Any) -> None:
        """Make the page's client. *tokens* are given out in turn, the last for ever; without any it is a visitor's."""
        await self.page.evaluate(CLIENT, [self.base, list(tokens), options])

    async def secret(self, current: str | None = None) -> str:
        secret: str = await self.page.evaluate("(current) => client.getClientSecret(current)", current)
        return secret

    async def error(self, current: str | None = None) -> dict[str, Any]:
        error: dict[str, Any] = await self.page.evaluate(ERROR, current)
        return error

    async def log_out(self, **options: bool) -> dict[str, int]:
        report: dict[str, int] = await self.page.evaluate("(options) => client.logout(options)", options)
        return report


@pytest_asyncio.fixture(params=[OTHER], loop_scope="session")
async def tab(request: pytest.FixtureRequest, house: House, chromium: Browser) -> AsyncIterator[Tab]:
    """A page of a browser that nobody has used, on the service's origin or on another."""
    house.front.begin()
    house.pages.begin()
    context = await chromium.new_context()
    tab = Tab(house, await context.new_page(), house.front.url)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    await tab.page.goto(house.front.url if request.param == SAME else house.pages.url)
    yield tab
    await context.close()
    assert tab.errors == []


@pytest.fixture(scope="session")
def compiler() -> Path:
    """TypeScript's, of this folder's own node_modules."""
    if not (TOOLS / "node_modules" / ".installed").exists():
        pytest.skip("tests/browser/setup has not installed TypeScript and ChatKit's types")
    return TOOLS / "node_modules" / ".bin" / "tsc"


@pytest.fixture
def subject() -> str:
    """Somebody whom no other test knows."""
    return f"user-{secrets.token_hex(6)}"
