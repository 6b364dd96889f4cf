"""The public listener: what front ends, apps and SDKs call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, with_config
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from service.contract import STRICT, WISH, SessionWish
from service.http.answers import json_answer, read_body
from service.identity.authenticate import TENANT_HEADER, Authenticator, bearer_token
from service.observe.logs import note
from service.policy.decide import decide
from service.policy.tenant import Policies
from service.principal import Principal
from service.sessions.logout import Logout
from service.sessions.mint import Mint
from service.store.records import UserKeys
from service.store.sessions import SessionStore


@with_config(STRICT)
class LogoutWish(TypedDict, total=False):
    """Body of a logout: `everywhere` ends every login of the user, not this one alone."""

    everywhere: bool


LOGOUT: Final[TypeAdapter[LogoutWish]] = TypeAdapter(LogoutWish)


@dataclass(frozen=True, slots=True)
class PublicApi:
    """The endpoints, on top of the use cases. *policies* gives the ones in force; a request asks for them once."""

    policies: Callable[[], Policies]
    authenticator: Authenticator
    mint: Mint
    logout: Logout
    store: SessionStore
    clock: Callable[[], float]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [
            Route("/v1/chatkit/sessions", self.sessions, methods=["GET", "POST"]),
            Route("/v1/chatkit/sessions/{session_id}/cancel", self.cancel_session, methods=["POST"]),
            Route("/v1/logout", self.log_out, methods=["POST"]),
        ]

    async def sessions(self, request: Request) -> Response:
        """Mint a session (POST), or list the caller's live ones (GET)."""
        if request.method == "POST":
            return await self._mint(request)
        principal = await self._principal(request, self.policies())
        keys = UserKeys.of(principal.tenant, principal.subject)
        live = await self.store.live(keys, now=self.clock())
        return json_answer({"object": "list", "data": [session.public() for session in live], "has_more": False})

    async def cancel_session(self, request: Request) -> Response:
        """Cancel one of the caller's own sessions."""
        principal = await self._principal(request, self.policies())
        session = await self.logout.one(principal, request.path_params["session_id"])
        return json_answer(session.public())

    async def log_out(self, request: Request) -> Response:
        """End the caller's login, or every login of the user."""
        principal = await self._principal(request, self.policies())
        wish = await read_body(request, LOGOUT, empty=LogoutWish())
        report = await self.logout(principal, everywhere=wish.get("everywhere", False))
        return json_answer({"cancelled": report.cancelled, "pending": report.pending})

    async def _mint(self, request: Request) -> Response:
        policies = self.policies()
        principal = await self._principal(request, policies)
        wishes = await read_body(request, WISH, empty=SessionWish())
        tenant = policies.tenants[principal.tenant]
        grant = decide(tenant, principal, wishes, now=self.clock(), version=policies.version)
        result = await self.mint(principal, grant)
        body: dict[str, Any] = {
            **result.minted.session.public(state_variables=grant.expose_state_variables),
            "client_secret": result.minted.client_secret,
        }
        return json_answer(body, headers=dict(result.headers))

    async def _principal(self, request: Request, policies: Policies) -> Principal:
        token = bearer_token(request.headers.getlist("authorization"))
        principal = await self.authenticator.principal(
            token, policies.trusts, tenant=request.headers.get(TENANT_HEADER)
        )
        note(tenant=principal.tenant)
        return principal
