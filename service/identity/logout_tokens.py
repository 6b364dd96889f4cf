"""Turn a provider's logout token into the logins that it ends (OIDC Back-Channel Logout 1.0 §2.4, §2.6)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.errors import InvalidToken, IssuerUnavailable
from service.identity.claims import LOGOUT_EVENT, check_times, is_name, refusal_of, telling
from service.identity.jws import MAX_NAME, parse_token
from service.identity.keys import KeyCache
from service.identity.signatures import believing, verified
from service.identity.visitors import SUBJECT_PREFIX
from service.observe.logs import note
from service.principal import EndedLogin, Trust

TYPED: Final = "logout+jwt"
"""§2.4: what a logout token's header says of it."""
LIFE: Final = 600.0
"""Seconds after its `iat` that a token without an `exp` is taken, where the issuer is allowed to send such."""
OF_THE_TOKEN: Final = frozenset({"jti", "iat", "exp", "nbf", "aud", "events", "typ"})
"""Claims that say something of the logout token itself, not of the login that an access token came from."""


@dataclass(frozen=True, slots=True)
class LogoutToken:
    """A genuine logout token. `issued_at` and `usable_until` are in Unix seconds."""

    issuer: str
    jti: str
    issued_at: float
    usable_until: float
    ended: tuple[EndedLogin, ...]
    """Whom it logs out, of every tenant that believes the issuer."""
    unmapped: tuple[str, ...]
    """Tenants whose user can't be told from the claims of a logout token."""
    unavailable: IssuerUnavailable | None
    """Set where other tenants may believe the token too, and their keys of the issuer can't be had now."""


class LogoutTokens:
    """Checks logout tokens. *clock* gives Unix seconds."""

    def __init__(self, keys: KeyCache, *, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock

    async def read(self, token: str, trusts: Mapping[str, tuple[Trust, ...]]) -> LogoutToken:
        """Return what *token* says; *trusts* are by issuer.

        A `match` is left out: its claims are not in logout tokens, and who logs out at the provider does so for all.
        Raises `InvalidToken` or `IssuerUnavailable`.
        """
        parsed = parse_token(token)
        believers = believing(parsed, trusts, lambda trust: trust.logout_audiences)
        genuine, unavailable = await verified(self._keys, parsed, believers)
        claims, now = parsed.unverified_claims, self._clock()
        refusals = {trust: refusal_of(_check, claims, parsed.unverified_header, trust, now) for trust in genuine}
        holding = [trust for trust, refusal in refusals.items() if refusal is None]
        if not holding:
            raise telling(list(refusals.values()))
        # From here on the claims are verified.
        ended = {trust: _ended(trust, claims) for trust in holding}
        return LogoutToken(
            issuer=claims["iss"],
            jti=claims["jti"],
            issued_at=claims["iat"],
            usable_until=max(_usable_until(claims, trust) for trust in holding),
            ended=tuple(dict.fromkeys(each for each in ended.values() if each)),
            unmapped=tuple(sorted({trust.tenant for trust, each in ended.items() if each is None})),
            unavailable=unavailable,
        )


def _check(claims: dict[str, Any], header: dict[str, Any], trust: Trust, now: float) -> None:
    typ = header.get("typ")
    kind = typ.lower().removeprefix("application/") if isinstance(typ, str) else typ
    if kind != TYPED and not (trust.logout_allows_missing_typ and kind in (None, "", "jwt")):
        raise InvalidToken(f"typ is not {TYPED}")
    if "exp" not in claims and not trust.logout_allows_missing_exp:
        raise InvalidToken("exp is missing")
    check_times(claims, trust, now, life=LIFE)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise InvalidToken("events does not say that this is a back-channel logout")
    if "nonce" in claims:
        raise InvalidToken("a logout token has no nonce")
    if not is_name(claims.get("jti")):
        raise InvalidToken(f"jti is missing or no string of 1 to {MAX_NAME} characters")
    named = [name for name in ("sub", "sid") if name in claims]
    if not named:
        raise InvalidToken("neither sub nor sid says who is logged out")
    for name in named:
        if not is_name(claims[name]):
            raise InvalidToken(f"{name} is no string of 1 to {MAX_NAME} characters without control characters")


def _usable_until(claims: dict[str, Any], trust: Trust) -> float:
    """Return when the token can no longer be used, in Unix seconds: so long its `jti` must be known."""
    issued = claims["iat"]
    latest: float = min(claims.get("exp", issued + LIFE), issued + trust.max_age)
    return latest + trust.leeway


def _ended(trust: Trust, claims: dict[str, Any]) -> EndedLogin | None:
    """Return who is logged out of the trust's tenant; None where these claims don't tell."""
    claims = {name: value for name, value in claims.items() if name not in OF_THE_TOKEN}
    subject = _named(trust, "subject", trust.subject, claims) if "sub" in claims else None
    if subject is not None and subject.startswith(SUBJECT_PREFIX):
        subject = None
    login = _named(trust, "login", trust.login, claims) if "sid" in claims else None
    if subject is None and login is None:
        return None
    # A session that we can't tell from the user's others ends with all of them.
    return EndedLogin(trust.tenant, trust.issuer, subject, login)


def _named(trust: Trust, what: str, read: Callable[[dict[str, Any]], Any], claims: dict[str, Any]) -> str | None:
    try:
        value = read(claims)
    except ValueError as error:
        note(logout_unmapped=f"{trust.tenant}: {what}: {error}")
        return None
    return value if is_name(value) else None
