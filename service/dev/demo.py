"""The demo page of `dev`, and what it asks of this process: who could sign in, a token for them, why they get what."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Final, Required

from pydantic import Field, TypeAdapter, with_config
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from service.contract import STRICT, SessionWish
from service.dev.guard import Guard
from service.dev.identity_provider import ISSUER, IdentityProvider
from service.dev.meters import meters
from service.errors import InvalidRequest, NotFound, Refusal
from service.http.admin import EXPLAIN
from service.http.answers import json_answer, read_body
from service.http.assets import Asset
from service.http.problems import answer_error
from service.observe.metrics import Metrics
from service.policy.explain import explain
from service.policy.tenant import Policies, Tenant
from service.principal import Trust
from service.session import Limits, Status
from service.store.records import UserKeys
from service.store.sessions import SessionStore
from service.upstream.authority.sessions import Authority
from service.upstream.authority.wire import WireError

OPENAI: Final = "https://api.openai.com/"
CHATKIT: Final = "https://cdn.platform.openai.com"
"""Where ChatKit's own element comes from, and the frame that it opens."""
MOST_IDS: Final = 50
"""Sessions that the page asks after at once."""
USERS: Final = (
    {"name": "Alice", "about": "pro plan", "subject": "alice", "claims": {"name": "Alice", "plan": "pro"}},
    {"name": "Bob", "about": "no plan", "subject": "bob", "claims": {"name": "Bob"}},
    {"name": "Mallory", "about": "suspended", "subject": "mallory", "claims": {"name": "Mallory", "suspended": True}},
)
KINDS: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


@with_config(STRICT)
class TokenWish(TypedDict):
    """Whose token: as `chatkit-mint token` takes it."""

    tenant: Required[str]
    subject: Required[Annotated[str, Field(min_length=1, max_length=256)]]
    claims: Required[dict[str, Any]]


TOKEN: Final[TypeAdapter[TokenWish]] = TypeAdapter(TokenWish)


@dataclass(frozen=True, slots=True)
class Demo:
    """The page and its routes. *url* is where it answers, *service* where the service does."""

    url: str
    service: str
    policies: Callable[[], Policies]
    provider: IdentityProvider
    store: SessionStore
    authority: Authority
    metrics: Metrics
    clock: Callable[[], float]

    def app(self) -> Guard:
        """Return the app; it answers nobody but its own page."""
        routes = [
            *(asset.route() for asset in _assets(self.url)),
            Route("/demo/world", self.world),
            Route("/demo/token", self.token, methods=["POST"]),
            Route("/demo/explain", self.explain, methods=["POST"]),
            Route("/demo/sessions", self.sessions),
            Route("/demo/meters", self.meters),
        ]
        handlers = {Refusal: _refused, HTTPException: _refused}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.url, self.policy)

    def policy(self) -> str:
        """Return the page's `Content-Security-Policy`: ChatKit's own host is in it where its element could work."""
        chatkit = any(not _no_chatkit(tenant) for tenant in self._tenants())
        element = f" {CHATKIT}" if chatkit else ""
        return "; ".join(
            [
                "default-src 'none'",
                f"script-src 'self' {self.service}{element}",
                f"connect-src 'self' {self.service}{element}",
                *([f"frame-src {CHATKIT}"] if chatkit else ["require-trusted-types-for 'script'"]),
                "style-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ]
        )

    async def world(self, _request: Request) -> Response:
        """Tell where the service is, which tenants could be tried, and who could sign in."""
        return json_answer(
            {"service": self.service, "tenants": [_told(each) for each in self._tenants()], "users": USERS}
        )

    async def token(self, request: Request) -> Response:
        """Sign somebody in: a token of the development identity provider, which believes whatever it is told."""
        wish = await read_body(request, TOKEN)
        trusted = [trust for trust in self._tenant(wish["tenant"]).trusts if trust.issuer == ISSUER]
        if not trusted:
            raise NotFound("the tenant trusts other issuers alone")
        claims = {"sub": wish["subject"], **wish["claims"]}
        try:
            token = self.provider.token(min(trusted[0].audiences), wish["subject"], claims)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(detail=f"No token has such claims: {error}", field="claims") from None
        return json_answer({"token": token, "subject": _subject(trusted[0], claims)})

    async def explain(self, request: Request) -> Response:
        """Tell what a caller with these claims would get, and why: as `chatkit-mint explain` does."""
        wish = await read_body(request, EXPLAIN)
        tenant, visitor = self._tenant(wish["tenant"]), wish.get("visitor", False)
        try:
            told = explain(tenant, wish["claims"], wish.get("request", SessionWish()), visitor=visitor)
        except ValueError as error:
            raise InvalidRequest(detail=str(error), field="claims") from None
        return json_answer(told.as_json())

    async def sessions(self, request: Request) -> Response:
        """List a user's live sessions, and what became of those others that the page knows."""
        asked = request.query_params
        tenant = self._tenant(asked.get("tenant", ""))
        live = await self.store.live(UserKeys.of(tenant.name, asked.get("subject", "")), now=self.clock())
        listed = {session.id: session.public() for session in live}
        for session_id in asked.getlist("id")[:MOST_IDS]:
            if session_id not in listed:
                listed[session_id] = await self._over(tenant, session_id)
        return json_answer({"data": list(listed.values())})

    async def meters(self, _request: Request) -> Response:
        """Tell the few metrics that the page shows, as they are counted now."""
        return json_answer(meters(self.metrics))

    async def _over(self, tenant: Tenant, session_id: str) -> dict[str, Any]:
        """Return what became of a session: our authority knows; of another upstream, that it is in no record here."""
        try:
            found = await self.authority.find(session_id) if tenant.account.kind == "authority" else None
        except WireError:
            found = None
        # In the authority's record, but no more in ours: the cancel is on its way.
        status = "ended" if found is None else "ending" if found["status"] == Status.ACTIVE else found["status"]
        return {"id": session_id, "status": status}

    def _tenants(self) -> list[Tenant]:
        """Return those that the page can try: who believe the development identity provider, or have visitors."""
        tenants = self.policies().tenants
        return [tenant for _, tenant in sorted(tenants.items()) if tenant.visitors or _trusts_us(tenant)]

    def _tenant(self, name: str) -> Tenant:
        for tenant in self._tenants():
            if tenant.name == name:
                return tenant
        raise NotFound("no tenant of that name can be tried")


def _assets(url: str) -> Iterable[Asset]:
    headers = {"cache-control": "no-cache", "access-control-allow-origin": url}
    for file in (files("service.dev") / "page").iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        if kind := KINDS.get(file.name.rpartition(".")[2]):
            yield Asset(path, file.read_bytes(), f"{kind}; charset=utf-8", headers)


async def _refused(request: Request, error: Exception) -> Response:
    return answer_error(error, request)


def _trusts_us(tenant: Tenant) -> bool:
    return any(trust.issuer == ISSUER for trust in tenant.trusts)


def _subject(trust: Trust, claims: Mapping[str, Any]) -> str | None:
    """Return whom the tenant takes them for; None where it can't tell, and refuses the token."""
    try:
        subject = trust.subject(claims)
    except ValueError:
        return None
    return subject if isinstance(subject, str) else None


def _told(tenant: Tenant) -> dict[str, Any]:
    visitors = tenant.visitors
    return {
        "name": tenant.name,
        "users": _trusts_us(tenant),
        "visitors": visitors is not None,
        "limits": _limits(tenant.limits),
        "visitor_limits": _limits(visitors.policy.limits) if visitors else None,
        "no_chatkit": _no_chatkit(tenant),
    }


def _limits(limits: Limits) -> str:
    units = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}
    told = [f"{window.most} a {units.get(window.seconds, f'{window.seconds} s')}" for window in limits.mints]
    mints = f"{' and '.join(told)} for each user" if told else "as many sessions as anybody wants"
    if limits.live is None:
        return mints
    return f"{mints}; {limits.live} at once, then {'no more' if limits.excess == 'refuse' else 'the oldest gives way'}"


def _no_chatkit(tenant: Tenant) -> str | None:
    """Return why ChatKit's own element can't work with the tenant's sessions; None where it can."""
    account = tenant.account
    if account.kind == "openai" and account.base_url.startswith(OPENAI) and account.api_keys:
        return None
    if account.kind == "openai":
        return "Its sessions come from a server in OpenAI's place, which has no chat behind it."
    return "Its sessions come from the session authority in this repository, which issues and cancels, and has no chat."
