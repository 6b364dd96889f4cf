"""Turn a bearer token into a principal.

Nothing past this module sees a raw token; nothing before it trusts a claim.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.errors import InvalidRequest, InvalidToken, MissingCredentials, PolicyDenied
from service.identity.claims import check_claims, is_name, refusal_of, telling
from service.identity.differences import listed, quoted
from service.identity.jws import MAX_NAME, parse_token
from service.identity.keys import KeyCache
from service.identity.signatures import believing, verified
from service.identity.visitors import SUBJECT_PREFIX
from service.observe.logs import note
from service.principal import Principal, Trust

TENANT_HEADER: Final = "ChatKit-Tenant"
NO_VALUE: Final = frozenset({"undefined", "null", "None"})
"""What a page or a script sends that has no token."""


class Authenticator:
    """Bearer tokens → principals. *clock* gives Unix seconds."""

    def __init__(self, keys: KeyCache, *, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock

    async def principal(self, token: str, trusts: Mapping[str, tuple[Trust, ...]], *, tenant: str | None) -> Principal:
        """Return who sent *token*; *trusts* are by issuer, *tenant* is the caller's choice where several fit.

        Raises `InvalidToken` (`TokenExpired` where only its time is over), `PolicyDenied` (genuine, but no tenant's),
        `InvalidRequest` (several tenants fit and none is chosen) or `IssuerUnavailable`.
        """
        parsed = parse_token(token)
        believers = believing(parsed, trusts, lambda trust: trust.audiences, without=True)
        # Those who came in the same turn of the loop are verified in a row, and only then dealt with further: a
        # curve's tables alone are a third of what a processor's second cache holds (docs/performance.md).
        await asyncio.sleep(0)
        genuine, _ = await verified(self._keys, parsed, believers)
        await asyncio.sleep(0)
        claims, now = parsed.unverified_claims, self._clock()
        # Each entry by its own rules: a strict tenant must not refuse what belongs to a lax one.
        refusals = [refusal_of(check_claims, claims, parsed.unverified_header, trust, now) for trust in genuine]
        holding = [trust for trust, refusal in zip(genuine, refusals, strict=True) if refusal is None]
        if not holding:
            raise telling(refusals)
        # From here on the claims are verified.
        fitting = _matching(holding, claims)
        return _principal(_chosen(fitting, tenant), claims)


def bearer_token(headers: list[str]) -> str:
    """Return the token of the `Authorization` headers (RFC 6750 §2.1), of which there must be one.

    Raises `MissingCredentials` where there is no bearer credential, `InvalidToken` where there is more than one.
    """
    if not headers:
        raise MissingCredentials("no Authorization header")
    if len(headers) > 1:
        raise InvalidToken("more than one Authorization header")
    scheme, _, token = headers[0].partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer" and not token:
        raise MissingCredentials("no token after `Bearer`: is the caller's variable empty?")
    if scheme.lower() != "bearer":
        kind = "of another kind" if token else "that is one word: is `Bearer` missing before the token?"
        raise MissingCredentials(f"an Authorization header {kind}")
    if token in NO_VALUE:
        raise InvalidToken(f"the token is the word {token}: the caller had none to send")
    return token


def _matching(genuine: list[Trust], claims: dict[str, Any]) -> list[Trust]:
    """Return one trust a tenant, the first whose `match` holds. One that can't be evaluated doesn't hold."""
    found: dict[str, Trust] = {}
    for trust in genuine:
        try:
            holds = trust.tenant not in found and trust.matches(claims)
        except ValueError as error:
            note(match_failed=f"{trust.tenant}: {error}")
            continue
        if holds:
            found[trust.tenant] = trust
    return list(found.values())


def _chosen(fitting: list[Trust], tenant: str | None) -> Trust:
    if not fitting:
        raise PolicyDenied("the token is genuine, but fits no tenant: no `match` holds")
    if tenant is not None:
        chosen = [trust for trust in fitting if trust.tenant == tenant]
        if not chosen:
            names = listed([trust.tenant for trust in fitting])
            raise PolicyDenied(f"the token is genuine, but fits {names}, not {quoted(tenant)} of {TENANT_HEADER}")
        fitting = chosen
    if len(fitting) > 1:
        raise InvalidRequest(
            detail=f"This login belongs to several tenants; choose with the {TENANT_HEADER} header",
            field=TENANT_HEADER,
        )
    return fitting[0]


def _principal(trust: Trust, claims: dict[str, Any]) -> Principal:
    try:
        subject, login = trust.subject(claims), trust.login(claims)
    except ValueError as error:
        raise PolicyDenied(f"{trust.tenant}: {error}") from None
    if not is_name(subject):
        raise PolicyDenied(f"{trust.tenant}: the subject is no string of 1 to {MAX_NAME} characters")
    if subject.startswith(SUBJECT_PREFIX):
        raise PolicyDenied(f"{trust.tenant}: a token may not claim a visitor's subject")
    if login is not None and not is_name(login):
        raise PolicyDenied(f"{trust.tenant}: the login is no string of 1 to {MAX_NAME} characters")
    return Principal(
        tenant=trust.tenant,
        subject=subject,
        login=login,
        issued_at=claims["iat"],
        expires_at=claims["exp"],
        ends_with_token=trust.session_ends_with_token,
        issuer=trust.issuer,
        claims=claims,
    )
