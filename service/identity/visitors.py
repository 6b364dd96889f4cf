"""People who are not logged in: a signed cookie carries a random id, and nothing else.

The cookie is the visitor's whole identity. Its keys rotate: the first one signs, all verify, and whoever comes with
an older one leaves with a new cookie for the same id.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.principal import Principal, Visitors

SUBJECT_PREFIX: Final = "visitor:"
"""Leads a visitor's subject. No token may claim such a subject: a user can't become somebody's visitor."""
LEEWAY: Final = 30
"""Seconds by which replicas' clocks may differ."""
_FORM: Final = re.compile(r"1\.([A-Za-z0-9_-]{22})\.(0|[1-9][0-9]{0,11})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Visit:
    """A visitor, and the `Set-Cookie` value of an answer that lets them in (None: the cookie is good as it is).

    A renewed cookie is for those alone who were let in with the old one: else a logged-out visitor, coming with an
    old copy, would leave with a new identity's date.
    """

    principal: Principal
    set_cookie: str | None


class VisitorCookies:
    """Signs and verifies. *keys* are secrets of at least 32 bytes; *clock* gives Unix seconds."""

    def __init__(self, keys: Sequence[str], *, clock: Callable[[], float]) -> None:
        self._keys = [key.encode(errors="surrogateescape") for key in keys]
        self._clock = clock

    def visit(self, who: Visitors, cookie: str | None) -> Visit:
        """Return the visitor of *cookie*, or a new one where it is absent, forged, expired or another tenant's."""
        known = self._verify(who, cookie) if cookie else None
        if known is None:
            visitor, issued = secrets.token_urlsafe(16), int(self._clock())
            return Visit(_principal(who, visitor, issued), self._cookie(who, visitor))
        visitor, issued, fresh = known
        return Visit(_principal(who, visitor, issued), None if fresh else self._cookie(who, visitor))

    def known(self, who: Visitors, cookie: str | None) -> Principal | None:
        """Return the visitor of a good cookie; None where there is none."""
        known = self._verify(who, cookie) if cookie else None
        return _principal(who, known[0], known[1]) if known else None

    def _verify(self, who: Visitors, cookie: str) -> tuple[str, int, bool] | None:
        """Return id, time of issue, and whether it needs no renewal."""
        form = _FORM.fullmatch(cookie)
        if form is None:
            return None
        visitor, issued, mac = form[1], int(form[2]), form[3]
        age = self._clock() - issued
        if not -LEEWAY <= age <= who.max_age:
            return None
        for index, key in enumerate(self._keys):
            if hmac.compare_digest(_mac(key, who.tenant, visitor, issued), mac):
                return visitor, issued, index == 0 and age < who.max_age / 2
        return None

    def _cookie(self, who: Visitors, visitor: str) -> str:
        issued = int(self._clock())
        value = f"1.{visitor}.{issued}.{_mac(self._keys[0], who.tenant, visitor, issued)}"
        return _set_cookie(who.tenant, value, who.max_age)


def cookie_name(tenant: str) -> str:
    """Return the cookie's name: one a tenant, and by its prefix of this host alone (RFC 6265bis §4.1.3.2)."""
    return f"__Host-chatkit-visitor-{tenant}"


def forget_cookie(tenant: str) -> str:
    """Return the `Set-Cookie` value that ends a visitor's identity in this browser."""
    return _set_cookie(tenant, "", 0)


def _set_cookie(tenant: str, value: str, max_age: int) -> str:
    return f"{cookie_name(tenant)}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax"


def _mac(key: bytes, tenant: str, visitor: str, issued: int) -> str:
    text = f"chatkit-mint visitor 1\0{tenant}\0{visitor}\0{issued}"
    return urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).rstrip(b"=").decode()


def _principal(who: Visitors, visitor: str, issued: int) -> Principal:
    subject = SUBJECT_PREFIX + visitor
    return Principal(
        tenant=who.tenant,
        subject=subject,
        login=None,
        issued_at=issued,
        expires_at=issued + who.max_age,
        claims={"sub": subject, "visitor": True},
        visitor=True,
    )
