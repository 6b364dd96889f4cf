"""The public listener: what front ends, apps and SDKs call."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter, with_config
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from service.contract import STRICT, WISH, SessionWish
from service.errors import LoginRevoked, NotFound, StoreUnavailable, UpstreamUnavailable
from service.http.answers import json_answer, read_body
from service.http.credentials import Caller, Credentials
from service.http.operation import BY_BODY, BY_CALLER, BY_MINT, Credential, Operation
from service.http.shapes import LOGGED_OUT, MINTED, SESSION, SESSIONS
from service.http.starters import START, STARTERS, StartWish, wishes_of
from service.identity.visitors import forget_cookie
from service.observe.audit import Audit, named
from service.observe.logs import note
from service.policy.decide import decide
from service.policy.tenant import Policies, Tenant
from service.principal import Principal
from service.session import Grant, Session
from service.sessions.logout import Logout
from service.sessions.mint import Mint, MintResult
from service.store.limits import SharedLimits
from service.store.records import UserKeys
from service.store.sessions import SessionStore


@with_config(STRICT)
class LogoutWish(TypedDict, total=False):
    """Body of a logout: `everywhere` ends every login of the user, not this one alone."""

    everywhere: bool


LOGOUT: Final[TypeAdapter[LogoutWish]] = TypeAdapter(LogoutWish)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/chatkit/sessions",
        "mintSession",
        "Mint a session. The body is optional; everything in it is a wish, and the tenant's policy decides.",
        Credential.USER,
        BY_MINT,
        shape=WISH,
        answer=MINTED,
        example={"workflow": {"id": "wf_support"}},
        minting=True,
    ),
    Operation(
        "GET",
        "/v1/chatkit/sessions",
        "listSessions",
        "List the caller's live sessions, never a secret.",
        Credential.USER,
        (*BY_CALLER, LoginRevoked, StoreUnavailable),
        answer=SESSIONS,
    ),
    Operation(
        "POST",
        "/v1/chatkit/sessions/{session_id}/cancel",
        "cancelSession",
        "Cancel one of the caller's own sessions. Where upstream doesn't confirm in time it is tried again here.",
        Credential.USER,
        (*BY_CALLER, LoginRevoked, NotFound, UpstreamUnavailable, StoreUnavailable),
        answer=SESSION,
    ),
    Operation(
        "POST",
        "/v1/logout",
        "logOut",
        "End the caller's login, or every login of the user, and cancel the sessions; of a visitor, the visit.",
        Credential.USER,
        (*BY_CALLER, *BY_BODY, LoginRevoked, StoreUnavailable),
        shape=LOGOUT,
        answer=LOGGED_OUT,
        example={"everywhere": True},
    ),
)


@dataclass(frozen=True, slots=True)
class PublicApi:
    """The endpoints, on top of the use cases. *policies* gives the ones in force; a request asks for them once."""

    policies: Callable[[], Policies]
    credentials: Credentials
    mint: Mint
    logout: Logout
    store: SessionStore
    limits: SharedLimits
    audit: Audit
    clock: Callable[[], float]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [
            Route("/v1/chatkit/sessions", self.sessions, methods=["GET", "POST"]),
            Route("/v1/chatkit/sessions/{session_id}/cancel", self.cancel_session, methods=["POST"]),
            Route("/v1/logout", self.log_out, methods=["POST"]),
            # Each has an endpoint of its own, by which the metrics tell them apart.
            *(Route(path, partial(self.start), methods=["POST"]) for path in STARTERS),
        ]

    async def sessions(self, request: Request) -> Response:
        """Mint a session (POST), or list the caller's live ones (GET)."""
        policies, minting = self.policies(), request.method == "POST"
        with self.audit.denials("mint" if minting else "list", request.client, policy=policies.version) as known:
            caller = await self.credentials.caller(request, policies, welcome=minting)
            known.update(who := self._who(caller.principal, policies))
            if minting:
                return await self._mint(request, caller, policies, who)
            await self.store.check_login(caller.principal)
            keys = UserKeys.of(caller.principal.tenant, caller.principal.subject)
            live = await self.store.live(keys, now=self.clock())
        return json_answer({"object": "list", "data": [session.public() for session in live], "has_more": False})

    async def start(self, request: Request) -> Response:
        """Mint a session as the official starters' servers do, for a page that was written for one of them."""
        policies = self.policies()
        with self.audit.denials("mint", request.client, policy=policies.version) as known:
            caller = await self.credentials.caller(request, policies, welcome=True)
            known.update(who := self._who(caller.principal, policies))
            wishes = wishes_of(await read_body(request, START, empty=StartWish()))
            result, grant = await self._issue(request, caller, policies, wishes, who)
        body = {
            "client_secret": result.minted.client_secret,
            "expires_at": result.minted.session.expires_at,
            "expires_after": grant.body["expires_after"],
        }
        return _with_cookies(json_answer(body, headers=dict(result.headers)), caller.set_cookies)

    async def cancel_session(self, request: Request) -> Response:
        """Cancel one of the caller's own sessions."""
        policies = self.policies()
        with self.audit.denials("cancel", request.client, policy=policies.version) as known:
            caller = await self.credentials.caller(request, policies)
            known.update(self._who(caller.principal, policies))
            await self.store.check_login(caller.principal)
            session = await self.logout.one(caller.principal, request.path_params["session_id"])
        return json_answer(session.public())

    async def log_out(self, request: Request) -> Response:
        """End the caller's login, or every login of the user; of a visitor, the visit."""
        policies = self.policies()
        with self.audit.denials("logout", request.client, policy=policies.version) as known:
            caller = await self.credentials.caller(request, policies)
            principal = caller.principal
            known.update(who := self._who(principal, policies))
            wish = await read_body(request, LOGOUT, empty=LogoutWish())
            everywhere = wish.get("everywhere", False)
            if everywhere:
                # Of a login that is over, only its own logout may be repeated: a stolen token must not end new logins.
                await self.store.check_login(principal)
            remember = policies.tenants[principal.tenant].fence_for
            report = await self.logout(principal, everywhere=everywhere, remember=remember)
        self.audit.tell(
            "logout",
            **who,
            by="user",
            everywhere=everywhere,
            cancelled=report.cancelled,
            pending=report.pending,
        )
        answer = json_answer({"cancelled": report.cancelled, "pending": report.pending})
        return _with_cookies(answer, [forget_cookie(principal.tenant)] if principal.visitor else caller.set_cookies)

    async def _mint(self, request: Request, caller: Caller, policies: Policies, who: dict[str, Any]) -> Response:
        wishes = await read_body(request, WISH, empty=SessionWish())
        result, grant = await self._issue(request, caller, policies, wishes, who)
        body: dict[str, Any] = {
            **result.minted.session.public(state_variables=grant.expose_state_variables),
            "client_secret": result.minted.client_secret,
        }
        return _with_cookies(json_answer(body, headers=dict(result.headers)), caller.set_cookies)

    async def _issue(
        self, request: Request, caller: Caller, policies: Policies, wishes: SessionWish, who: dict[str, Any]
    ) -> tuple[MintResult, Grant]:
        principal, tenant = caller.principal, policies.tenants[caller.principal.tenant]
        note(policy=policies.version)
        grant = decide(tenant.policy_for(principal), principal, wishes, now=self.clock())
        if principal.visitor:
            await self._admit_address(request, tenant)

        def recorded(session: Session) -> None:
            self.audit.tell(
                "mint",
                **who,
                user=grant.user,
                session=session.id,
                workflow=grant.body["workflow"]["id"],
                policy=policies.version,
                expires_at=session.expires_at,
            )

        try:
            return await self.mint(principal, grant, recorded), grant
        except LoginRevoked as refusal:
            # A visitor has no login to renew: without the cookie, the next request is somebody new.
            forget = {"set-cookie": forget_cookie(tenant.name)} if principal.visitor else {}
            raise LoginRevoked(refusal.reason, headers=forget) from refusal

    @staticmethod
    def _who(principal: Principal, policies: Policies) -> dict[str, Any]:
        key = policies.tenants[principal.tenant].pseudonym_key
        visitor = principal.visitor or None
        who = named(principal.tenant, key, subject=principal.subject, login=principal.login)
        return {**who, "visitor": visitor, "client": None}

    async def _admit_address(self, request: Request, tenant: Tenant) -> None:
        """Count a visitor's mint against where it comes from; the server sets that from trusted proxies alone."""
        if tenant.visitors and request.client:
            if tenant.pseudonym_key is None:
                note(client=request.client.host)
            await self.limits.admit_address(tenant.name, request.client.host, tenant.visitors.address_mints)


def _with_cookies(answer: Response, cookies: Iterable[str]) -> Response:
    for cookie in cookies:
        answer.headers.append("set-cookie", cookie)
    return answer
