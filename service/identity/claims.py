"""What a verified signature does not say: that the token is for us, for now, and an access token.

RFC 7519 §4.1 (required claims and times), RFC 8725 §3.11 and §3.12 (kinds of JWT kept apart).
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeGuard

from service.errors import InvalidToken, TokenExpired
from service.identity.differences import of_kind
from service.identity.jws import MAX_NAME
from service.principal import Trust

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999: a larger time is a mistake or an attack."""
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_ID_TOKEN_CLAIMS: Final = ("nonce", "at_hash", "c_hash", "s_hash")
"""OIDC Core §2 and §3.3.2.11: marks that only an ID token carries."""
_KINDS_IN_CLAIMS: Final = {"typ": ("id", "refresh", "offline", "logout"), "token_use": ("id",)}
"""How Keycloak (`typ`) and Cognito (`token_use`) mark, in the payload, what is no access token."""
_TYPED: Final = "at+jwt"
"""RFC 9068 §2.1: what says so is an access token, whatever else is in it."""


def audience_of(claims: dict[str, Any]) -> frozenset[str]:
    """Return the audiences of `aud`, a string or an array of strings (RFC 7519 §4.1.3); else raise."""
    aud = claims.get("aud")
    values = [aud] if isinstance(aud, str) else aud
    if not isinstance(values, list) or set(map(type, values)) != {str}:
        raise InvalidToken("aud is neither a string nor an array of strings")
    return frozenset(values)


Check = Callable[[dict[str, Any], dict[str, Any], Trust, float], None]
"""Raises `InvalidToken` where the trust refuses these claims and this header now (Unix seconds)."""


def refusal_of(
    check: Check, claims: dict[str, Any], header: dict[str, Any], trust: Trust, now: float
) -> InvalidToken | None:
    """Return why a check refuses; None where it doesn't. Each trust has rules of its own, and one may do."""
    try:
        check(claims, header, trust, now)
    except InvalidToken as refusal:
        return refusal
    return None


def telling(refusals: list[InvalidToken | None]) -> InvalidToken:
    """Return the refusal that the holder can act on, which is that of a token too old; else the first.

    Each must be of a trust whose keys made the signature.
    """
    told = [refusal for refusal in refusals if refusal is not None]
    return next((refusal for refusal in told if isinstance(refusal, TokenExpired)), told[0])


def check_claims(claims: dict[str, Any], header: dict[str, Any], trust: Trust, now: float) -> None:
    """Raise `InvalidToken` unless *trust* takes these claims for an access token's at *now* (Unix seconds)."""
    _check_kind(claims, header, trust)
    if trust.authorized_parties and not (isinstance(azp := claims.get("azp"), str) and azp in trust.authorized_parties):
        raise InvalidToken("azp is none of those whom the tenant expects")
    _name(claims, "sub")
    if "sid" in claims:
        _name(claims, "sid")
    check_times(claims, trust, now)  # last: "expired" says that all else is right


def check_times(claims: dict[str, Any], trust: Trust, now: float, *, life: float | None = None) -> None:
    """Raise `InvalidToken` unless the token is for *now* (Unix seconds); `TokenExpired` where it was.

    Where `exp` may be left out, *life* is what stands in for it: seconds after `iat`.
    """
    issued = _time(claims, "iat")
    expires = _time(claims, "exp") if "exp" in claims or life is None else issued + life
    if issued > now + trust.leeway:
        raise InvalidToken(f"issued in the future: iat is {_ahead(issued, now, trust)}")
    if "nbf" in claims and (begins := _time(claims, "nbf")) > now + trust.leeway:
        raise InvalidToken(f"not valid yet: nbf is {_ahead(begins, now, trust)}")
    if now >= expires + trust.leeway:
        ago = f"{now - expires:.0f} s ago, leeway {trust.leeway:g} s"
        raise TokenExpired(f"expired by its exp: {ago}; if it is new, the clock here or the issuer's is wrong")
    if now - issued > trust.max_age + trust.leeway:
        wants = f"tenant {trust.tenant} has max_age {trust.max_age:g}"
        raise InvalidToken(f"older than max_age: {now - issued:.0f} s, {wants}")


def _ahead(time: float, now: float, trust: Trust) -> str:
    return f"{time - now:.0f} s ahead, leeway {trust.leeway:g} s: the clock here or the issuer's is wrong"


def _check_kind(claims: dict[str, Any], header: dict[str, Any], trust: Trust) -> None:
    typ = header.get("typ")
    if typ is not None and not isinstance(typ, str):
        raise InvalidToken("typ is not a string")
    kind = (typ or "").lower().removeprefix("application/")
    if trust.typ is not None:
        if kind != trust.typ.lower().removeprefix("application/"):
            raise InvalidToken(f"typ is not the one that this issuer's access tokens have: {of_kind(typ, trust.typ)}")
    elif kind not in ("", "jwt", "at+jwt"):
        raise InvalidToken(f"typ says that this is no access token: {of_kind(typ, 'at+jwt or JWT')}")
    events = claims.get("events")
    if isinstance(events, dict) and LOGOUT_EVENT in events:
        raise InvalidToken("a logout token is no access token")
    if kind == _TYPED or trust.accept_id_tokens:
        return
    marked = not claims.keys().isdisjoint(_ID_TOKEN_CLAIMS)
    for name, kinds in _KINDS_IN_CLAIMS.items():
        value = claims.get(name)
        marked = marked or (isinstance(value, str) and value.lower() in kinds)
    if marked:
        raise InvalidToken("an ID token is no access token: have the page send that one, or set `accept_id_tokens`")


def is_name(value: Any) -> TypeGuard[str]:
    """Return whether *value* can name somebody: short text that can stand in a path, a key and a log line."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and not _CONTROL.search(value)


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"{name} is missing or no number")
    if not 0 <= value <= LAST_SECOND or not math.isfinite(value):
        raise InvalidToken(f"{name} is no time")
    return value


def _name(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not is_name(value):
        raise InvalidToken(f"{name} is missing or no string of 1 to {MAX_NAME} characters without control characters")
    return value
