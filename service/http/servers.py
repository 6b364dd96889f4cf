"""What an app's own servers call, with a service key: log a user out, see a user's sessions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import InvalidToken, MissingCredentials, NotFound, PolicyDenied, StoreUnavailable
from service.http.answers import json_answer
from service.http.operation import Credential, Operation, Refusals
from service.http.shapes import LOGGED_OUT, SESSIONS
from service.identity.authenticate import bearer_token
from service.identity.service_keys import check_service_key
from service.observe.audit import Audit, named
from service.observe.logs import note
from service.policy.tenant import Policies
from service.sessions.logout import Logout
from service.store.records import UserKeys
from service.store.sessions import SessionStore

USER: Final = "/v1/tenants/{tenant}/users/{subject:path}"
"""A subject may hold slashes: it is all that stands between `/users/` and the last word."""
REFUSALS: Final[Refusals] = (MissingCredentials, InvalidToken, PolicyDenied, NotFound, StoreUnavailable)

OPERATIONS: Final = (
    Operation(
        "POST",
        f"{USER}/logout",
        "logOutUser",
        "End every login of one user and cancel their sessions (right `logout`): for an app's own logout hook.",
        Credential.SERVICE,
        REFUSALS,
        answer=LOGGED_OUT,
    ),
    Operation(
        "GET",
        f"{USER}/sessions",
        "listUserSessions",
        "List one user's live sessions, never a secret (right `read`).",
        Credential.SERVICE,
        REFUSALS,
        answer=SESSIONS,
    ),
)


@dataclass(frozen=True, slots=True)
class ServersApi:
    """The endpoints."""

    policies: Callable[[], Policies]
    logout: Logout
    store: SessionStore
    audit: Audit
    clock: Callable[[], float]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [
            Route(f"{USER}/logout", self.log_out_user, methods=["POST"]),
            Route(f"{USER}/sessions", self.user_sessions, methods=["GET"]),
        ]

    async def log_out_user(self, request: Request) -> Response:
        """End every login of one user (right `logout`)."""
        with self.audit.denials("logout", request.client, by="service key") as known:
            tenant, subject, remember = self._authorized(request, "logout")
            of_tenant = self.policies().tenants.get(tenant)
            who = named(tenant, of_tenant.pseudonym_key if of_tenant else None, subject=subject)
            known.update(who)
            report = await self.logout.user(tenant, subject, remember=remember)
        self.audit.tell(
            "logout",
            **who,
            by="service key",
            everywhere=True,
            cancelled=report.cancelled,
            pending=report.pending,
        )
        return json_answer({"cancelled": report.cancelled, "pending": report.pending})

    async def user_sessions(self, request: Request) -> Response:
        """List one user's live sessions, never a secret (right `read`)."""
        with self.audit.denials("list", request.client, by="service key"):
            tenant, subject, _ = self._authorized(request, "read")
        live = await self.store.live(UserKeys.of(tenant, subject), now=self.clock())
        return json_answer({"object": "list", "data": [session.public() for session in live], "has_more": False})

    def _authorized(self, request: Request, right: str) -> tuple[str, str, float]:
        """Return tenant, subject, and how long that tenant's logouts must be remembered (s)."""
        presented = bearer_token(request.headers.getlist("authorization"))
        tenant = self.policies().tenants.get(request.path_params["tenant"])
        key = check_service_key(presented, tenant.service_keys if tenant else (), right)
        note(tenant=key.tenant, service_key=key.name)
        return key.tenant, request.path_params["subject"], tenant.fence_for if tenant else 0.0
