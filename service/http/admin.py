"""The admin routes of the operations listener: for people and scripts who hold the admin key."""

import hmac
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, NotRequired, Required

from pydantic import Field, SecretStr, TypeAdapter, with_config
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from service.contract import STRICT, SessionWish
from service.errors import InvalidRequest, InvalidToken, NotFound
from service.http.answers import json_answer, read_body
from service.identity.authenticate import bearer_token
from service.observe.audit import Audit
from service.observe.logs import note
from service.policy.explain import explain
from service.policy.tenant import Policies, Tenant
from service.session import Limits
from service.sessions.revoke import Revoke, Standing
from service.store.records import UserKeys
from service.store.sessions import SessionStore


@with_config(STRICT)
class ExplainWish(TypedDict):
    """What to explain: whose claims, with which create body, as a visitor or not."""

    tenant: Required[str]
    claims: Required[dict[str, Any]]
    request: NotRequired[SessionWish]
    visitor: NotRequired[bool]


@with_config(STRICT)
class RevokeWish(TypedDict, total=False):
    """How to revoke: cancels a second."""

    rate: Annotated[float, Field(gt=0, le=10_000)]


EXPLAIN: Final[TypeAdapter[ExplainWish]] = TypeAdapter(ExplainWish)
REVOKE: Final[TypeAdapter[RevokeWish]] = TypeAdapter(RevokeWish)


@dataclass(frozen=True, slots=True)
class AdminApi:
    """The endpoints. Without an admin key there are none."""

    key: SecretStr | None
    policies: Callable[[], Policies]
    store: SessionStore
    revoke: Revoke
    revoke_rate: float
    audit: Audit
    clock: Callable[[], float]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        if self.key is None:
            return []
        return [
            Route("/admin/tenants", self.tenants),
            Route("/admin/tenants/{tenant}/users/{subject:path}/sessions", self.user_sessions),
            Route("/admin/tenants/{tenant}/revoke", self.revoke_tenant, methods=["GET", "POST"]),
            Route("/admin/tenants/{tenant}/unblock", self.unblock_tenant, methods=["POST"]),
            Route("/admin/explain", self.explain, methods=["POST"]),
        ]

    async def tenants(self, request: Request) -> Response:
        """List the tenants in force."""
        self._check_key(request)
        policies = self.policies()
        tenants = list(policies.tenants.values())
        blocked = await self.revoke.blocked([tenant.name for tenant in tenants])
        listed = [
            {
                "tenant": tenant.name,
                "upstream": tenant.account.kind,
                "issuers": sorted({trust.issuer for trust in tenant.trusts}),
                "visitors": tenant.visitors is not None,
                "limits": _told(tenant.limits),
                "blocked_since": since,
            }
            for tenant, since in zip(tenants, blocked, strict=True)
        ]
        return json_answer({"object": "list", "data": listed, "version": policies.version})

    async def user_sessions(self, request: Request) -> Response:
        """List one user's live sessions, never a secret."""
        self._check_key(request)
        tenant = self._tenant(request.path_params["tenant"])
        live = await self.store.live(UserKeys.of(tenant.name, request.path_params["subject"]), now=self.clock())
        return json_answer({"object": "list", "data": [session.public() for session in live], "has_more": False})

    async def revoke_tenant(self, request: Request) -> Response:
        """Block a tenant and begin to cancel all its sessions (POST, 202), or tell how far that is (GET)."""
        self._check_key(request)
        name = request.path_params["tenant"]
        standing = await self.revoke.standing(name)
        # One that is in no file any more may still have sessions.
        if not (standing.users or standing.progress or standing.blocked_since):
            self._tenant(name)
        if request.method != "POST":
            return json_answer(_standing(name, standing))
        wish = await read_body(request, REVOKE, empty=RevokeWish())
        rate = wish.get("rate", self.revoke_rate)
        standing = await self.revoke.begin(name, rate=rate)
        note(tenant=name, revoke=True)
        self.audit.tell("revoke", tenant=name, by="admin key", users=standing.users, rate=rate)
        return json_answer(_standing(name, standing), status=202)

    async def unblock_tenant(self, request: Request) -> Response:
        """Let new logins of a tenant mint again."""
        self._check_key(request)
        name = request.path_params["tenant"]
        was_blocked = await self.revoke.unblock(name)
        if not was_blocked:
            self._tenant(name)
        note(tenant=name, unblock=True)
        self.audit.tell("unblock", tenant=name, by="admin key", was_blocked=was_blocked)
        return json_answer({"tenant": name, "was_blocked": was_blocked})

    async def explain(self, request: Request) -> Response:
        """Tell what a caller with these claims would get, and why."""
        self._check_key(request)
        wish = await read_body(request, EXPLAIN)
        tenant = self._tenant(wish["tenant"])
        try:
            told = explain(
                tenant, wish["claims"], wish.get("request", SessionWish()), visitor=wish.get("visitor", False)
            )
        except ValueError as error:
            raise InvalidRequest(detail=str(error), field="claims") from None
        return json_answer(told.as_json())

    def _tenant(self, name: str) -> Tenant:
        tenant = self.policies().tenants.get(name)
        if tenant is None:
            raise NotFound(f"no tenant {name[:64]!r}")
        return tenant

    def _check_key(self, request: Request) -> None:
        presented = bearer_token(request.headers.getlist("authorization"))
        expected = self.key.get_secret_value() if self.key else ""
        with self.audit.denials("admin", request.client, by="admin key"):
            if not hmac.compare_digest(presented.encode(), expected.encode()):
                raise InvalidToken("not the admin key")


def _standing(tenant: str, standing: Standing) -> dict[str, Any]:
    progress = standing.progress
    told = {**asdict(progress), "remaining": progress.remaining} if progress else {"state": None}
    told.pop("round", None)  # the replicas' own affair
    return {
        "tenant": tenant,
        "blocked_since": standing.blocked_since,
        "users_remaining": standing.users,
        **told,
    }


def _told(limits: Limits) -> dict[str, Any]:
    mints, tenant_mints = (
        [{"count": window.most, "seconds": window.seconds} for window in windows]
        for windows in (limits.mints, limits.tenant_mints)
    )
    return {"mints": mints, "tenant_mints": tenant_mints, "live": limits.live, "excess": limits.excess}
