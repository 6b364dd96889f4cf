"""The whole service in this process, and browsers that come to it: cookies, an address, an `Origin`."""

import re
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.identity.visitors import VisitorCookies, cookie_name
from service.principal import Visitors
from support.documented import check_documented
from support.tenants import tenant_file
from support.tokens import Signer

SESSIONS = "/v1/chatkit/sessions"
LOGOUT = "/v1/logout"
WWW = "https://www.example"
"""Where visitors come from."""
APP = "https://app.example"
"""Where users with a token cookie come from."""
KEY, OLD_KEY = "k" * 32, "o" * 32
DAY = 86_400
MAX_AGE = 30 * DAY


@dataclass
class Clock:
    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Login:
    """The identity provider of every tenant here; each tenant is an audience of its own."""

    clock: Clock
    signer: Signer = field(default_factory=Signer)

    def tenant(self, name: str = "acme", **sections: Any) -> dict[str, Any]:
        identity = {
            "issuer": self.signer.issuer,
            "audience": name,
            "algorithms": ["ES256"],
            "jwks": self.signer.jwks,
        }
        return tenant_file(name, identity, **sections)

    def token(self, tenant: str = "acme", subject: str = "alice", **changes: Any) -> str:
        now = int(self.clock())
        return self.signer.token(subject, aud=tenant, **{"iat": now, "exp": now + 600, **changes})


@dataclass
class Browser:
    """One person's browser. *origin* is the page's, *token* what its script sends as a bearer token."""

    app: Starlette
    origin: str | None = WWW
    address: str = "192.0.2.1"
    token: str | None = None
    tenant: str | None = None
    """Sent as `ChatKit-Tenant`."""
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, authorization: str | None = None, **more: Any) -> httpx2.Response:
        headers = {
            "origin": self.origin,
            "chatkit-tenant": self.tenant,
            "authorization": f"Bearer {self.token}" if self.token else authorization,
            "cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()) or None,
        }
        transport = httpx2.ASGITransport(app=self.app, client=(self.address, 50_000))
        async with httpx2.AsyncClient(transport=transport, base_url="https://mint.example") as client:
            sent = {name: value for name, value in headers.items() if value is not None}
            answer = await client.request(method, path, headers=sent, **more)
        check_documented(answer)
        for name, value, max_age in cookies_of(answer):
            self.cookies[name] = value
            if max_age == 0:
                del self.cookies[name]
        return answer

    async def mint(self, **wishes: Any) -> httpx2.Response:
        return await self.ask("POST", SESSIONS, json=wishes)

    async def user(self) -> str:
        """Mint, and return whom the session is for."""
        answer = await self.mint()
        assert answer.status_code == 200, answer.text
        return str(answer.json()["user"])

    async def listed(self) -> list[str]:
        answer = await self.ask("GET", SESSIONS)
        assert answer.status_code == 200, answer.text
        return [session["id"] for session in answer.json()["data"]]

    async def log_out(self) -> httpx2.Response:
        return await self.ask("POST", LOGOUT)

    def visitor(self, tenant: str = "acme") -> str | None:
        """The visitor cookie's value."""
        return self.cookies.get(cookie_name(tenant))

    def carry(self, value: str, tenant: str = "acme") -> None:
        self.cookies[cookie_name(tenant)] = value


def cookies_of(answer: httpx2.Response) -> list[tuple[str, str, int]]:
    """Name, value and Max-Age of each cookie that the answer sets."""
    found = []
    for header in answer.headers.get_list("set-cookie"):
        form = re.fullmatch(r"([^=]+)=([^;]*); Path=/; Max-Age=(\d+); Secure; HttpOnly; SameSite=Lax", header)
        assert form, header
        found.append((form[1], form[2], int(form[3])))
    return found


def cookie_from(at: float, *, tenant: str = "acme", key: str = KEY) -> str:
    """A new visitor's cookie, rightly signed at some other time, for some other tenant or with some other key."""
    visit = VisitorCookies([key], clock=lambda: at).visit(Visitors(tenant, frozenset(), MAX_AGE), None)
    assert visit.set_cookie
    return visit.set_cookie.partition("=")[2].partition(";")[0]


def visitor_of(cookie: str | None) -> str:
    """The id in a cookie."""
    assert cookie
    return cookie.split(".")[1]


def refused(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["code"]


async def everything(redis: Redis) -> str:
    """All that Redis holds, as text."""
    found: list[Any] = []
    async for key in redis.scan_iter():
        kind: Any = await redis.type(key)
        if kind == b"hash":
            held: Any = await redis.hgetall(key)
        elif kind == b"zset":
            held = await redis.zrange(key, 0, -1)
        elif kind == b"list":
            held = await redis.lrange(key, 0, -1)
        else:
            assert kind == b"string", kind
            held = await redis.get(key)
        found.append((key, held))
    return repr(found)
