"""Which credential a request carries, and whose it is: a bearer token, a tenant's token cookie, or a visitor's.

A cookie comes along with whatever page sends the request, so where one is the credential the page's `Origin` must be
one that the tenant lists (CSRF). A bearer token is put there by code that holds it, and needs no such check.
"""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request

from service.errors import InvalidRequest, MissingCredentials, PolicyDenied
from service.identity.authenticate import TENANT_HEADER, Authenticator, bearer_token
from service.identity.differences import quoted
from service.identity.visitors import VisitorCookies, cookie_name, forget_cookie
from service.observe.logs import note
from service.policy.tenant import Policies, Tenant
from service.principal import Principal, Trust

SAFE_METHODS = frozenset({"GET", "HEAD"})


class Caller(NamedTuple):
    """Who is asking, and the cookies that the answer must set."""

    principal: Principal
    set_cookies: tuple[str, ...] = ()


class Credentials:
    """Requests → callers."""

    def __init__(self, authenticator: Authenticator, visitors: VisitorCookies) -> None:
        self._authenticator = authenticator
        self._visitors = visitors

    async def caller(self, request: Request, policies: Policies, *, welcome: bool = False) -> Caller:
        """Return who is asking; *welcome* makes a visitor of who has no cookie yet.

        Raises what `Authenticator.principal` raises, `MissingCredentials`, and `PolicyDenied` for a page that may
        not use the cookie it comes with.
        """
        caller = await self._caller(request, policies, welcome=welcome)
        note(tenant=caller.principal.tenant, visitor=caller.principal.visitor or None)
        return caller

    async def _caller(self, request: Request, policies: Policies, *, welcome: bool) -> Caller:
        asked = request.headers.get(TENANT_HEADER)
        authorization = request.headers.getlist("authorization")
        if authorization:
            principal = await self._authenticator.principal(bearer_token(authorization), policies.trusts, tenant=asked)
            return Caller(principal, _end_of_visit(request, principal.tenant))
        tenants = [tenant for tenant in policies.with_cookies if asked in (None, tenant.name)]
        if cookies := [tenant for tenant in tenants if tenant.cookie and tenant.cookie.name in request.cookies]:
            return await self._by_cookie(request, cookies, asked)
        if hosts := [tenant for tenant in tenants if tenant.visitors]:
            return self._visitor(request, hosts, welcome=welcome)
        raise MissingCredentials("no Authorization header, nor a cookie that a tenant takes")

    async def _by_cookie(self, request: Request, tenants: Sequence[Tenant], asked: str | None) -> Caller:
        allowed = [tenant for tenant in tenants if tenant.cookie and _origin_allowed(request, tenant.cookie.origins)]
        if not allowed or not allowed[0].cookie:
            unlike = f"{_origin_of(request)}, see `cookie.origins`"
            raise PolicyDenied(f"token cookie from a page of another origin: {unlike}")
        if len({tenant.cookie.name for tenant in allowed if tenant.cookie}) > 1:
            raise _choose()
        trusts: dict[str, tuple[Trust, ...]] = {}
        for tenant in allowed:
            for trust in tenant.trusts:
                trusts[trust.issuer] = (*trusts.get(trust.issuer, ()), trust)
        token = request.cookies[allowed[0].cookie.name]
        principal = await self._authenticator.principal(token, trusts, tenant=asked)
        return Caller(principal, _end_of_visit(request, principal.tenant))

    def _visitor(self, request: Request, tenants: Sequence[Tenant], *, welcome: bool) -> Caller:
        """Return the visitor; only a mint makes a new one."""
        open_to = [t for t in tenants if t.visitors and _origin_allowed(request, t.visitors.who.origins)]
        if not open_to:
            # Without an Origin it is no page at all, and then the answer is the usual one.
            if "origin" in request.headers:
                raise PolicyDenied(
                    f"visitor from a page of another origin: {_origin_of(request)}, see `visitors.origins`"
                )
            raise MissingCredentials("no Authorization header; and no Origin, which a visitor's page sends")
        if not welcome:
            for tenant in open_to:
                cookie = request.cookies.get(cookie_name(tenant.name))
                if tenant.visitors and (known := self._visitors.known(tenant.visitors.who, cookie)):
                    return Caller(known)
            raise MissingCredentials("no Authorization header, nor a visitor's cookie, which a mint sets")
        if len(open_to) > 1:
            raise _choose()
        tenant = open_to[0]
        assert tenant.visitors is not None  # noqa: S101  (chosen for it)
        visit = self._visitors.visit(tenant.visitors.who, request.cookies.get(cookie_name(tenant.name)))
        return Caller(visit.principal, (visit.set_cookie,) if visit.set_cookie else ())


def _choose() -> InvalidRequest:
    return InvalidRequest(
        detail=f"This page belongs to several tenants; choose with the {TENANT_HEADER} header", field=TENANT_HEADER
    )


def _origin_allowed(request: Request, origins: frozenset[str]) -> bool:
    """Return whether the request's page may use a cookie. A safe one may come without an Origin."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.method in SAFE_METHODS
    return origin in origins


def _origin_of(request: Request) -> str:
    origin = request.headers.get("origin")
    return "none was sent" if origin is None else quoted(origin)


def _end_of_visit(request: Request, tenant: str) -> tuple[str, ...]:
    """Forget a visitor who has logged in: nothing that was theirs comes along, now or after the logout."""
    return (forget_cookie(tenant),) if cookie_name(tenant) in request.cookies else ()
