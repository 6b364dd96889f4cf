"""OIDC Back-Channel Logout 1.0 §2.5 to §2.8: an identity provider tells us that a login is over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from service.errors import BodyTooLarge, InvalidRequest, InvalidToken, IssuerUnavailable, StoreUnavailable
from service.http.answers import FORM, only_field, read_form
from service.http.operation import Credential, Operation
from service.identity.logout_tokens import LogoutTokens
from service.observe.audit import Audit, named
from service.observe.logs import note
from service.policy.tenant import Policies
from service.sessions.backchannel import BackChannelLogout


class LogoutForm(TypedDict):
    """What a provider sends; other fields are its own affair."""

    logout_token: Annotated[str, Field(min_length=1)]


OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/logout/backchannel",
        "backChannelLogout",
        "OIDC Back-Channel Logout 1.0: an identity provider tells that a login, or every login of a user, is over.",
        Credential.LOGOUT_TOKEN,
        (InvalidRequest, BodyTooLarge, IssuerUnavailable, StoreUnavailable),
        shape=TypeAdapter(LogoutForm),
        media_type=FORM,
        body_required=True,
        answers=None,
        example={"logout_token": "$LOGOUT_TOKEN"},
    ),
)


@dataclass(frozen=True, slots=True)
class BackChannelApi:
    """The endpoint. Its credential is the logout token itself."""

    policies: Callable[[], Policies]
    tokens: LogoutTokens
    logout: BackChannelLogout
    audit: Audit
    clock: Callable[[], float]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [Route("/v1/logout/backchannel", self.log_out, methods=["POST"])]

    async def log_out(self, request: Request) -> Response:
        """End what the provider's logout token says has ended; 200 once nothing of it can mint any more."""
        with self.audit.denials("logout", request.client, by="logout token") as known:
            await self._log_out(request, known)
        return Response(b"", 200, {"cache-control": "no-store"})

    async def _log_out(self, request: Request, known: dict[str, Any]) -> None:
        policies = self.policies()
        presented = only_field(await read_form(request), "logout_token")
        try:
            token = await self.tokens.read(presented, policies.trusts)
        except InvalidToken as refusal:
            raise InvalidRequest(refusal.reason, detail="The logout token is not valid here") from None
        known["issuer"] = token.issuer
        note(issuer=token.issuer, tenants=sorted({each.tenant for each in token.ended})[:20])
        await self.logout(
            token.ended,
            jti=token.jti,
            issued_at=token.issued_at,
            usable_for=token.usable_until - self.clock(),
            remember_for=policies.remember_for,
        )
        for each in token.ended:
            tenant = policies.tenants[each.tenant]
            who = named(tenant.name, tenant.pseudonym_key, subject=each.subject, login=each.login)
            self.audit.tell("logout", **who, by="logout token", issuer=token.issuer)
        if token.unavailable:
            raise token.unavailable
        if token.unmapped:
            # §2.8: a logout that failed, even in part, is a 400. What could be ended has been.
            raise InvalidRequest(
                f"whose login it is can't be told for {', '.join(token.unmapped[:20])}",
                detail="The logout token does not say whom to log out",
            )
