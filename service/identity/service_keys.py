"""Servers that act for a tenant: long random keys, of which only a hash is kept.

A key has 256 random bits, so one SHA-256 is enough to keep it: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from service.errors import InvalidToken, PolicyDenied
from service.principal import ServiceKey

PREFIX: Final = "cmk_"
"""Leads every key, so that scanners of leaked secrets can know it."""


def make_service_key() -> tuple[str, str]:
    """Return a new key and the hexadecimal SHA-256 that a tenant file holds of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def tenants_of_key(presented: str, known: Mapping[bytes, Sequence[ServiceKey]], right: str) -> list[str]:
    """Return the tenants for whom the key that was presented has *right*; raise as `check_service_key` does.

    *known* is by digest. Looking a digest up may tell by its time how near a guess of the digest was, and nobody who
    has a digest has the key.
    """
    keys = known.get(_digest(presented), ())
    if not keys:
        raise InvalidToken("no service key of any tenant")
    tenants = [key.tenant for key in keys if right in key.rights]
    if not tenants:
        raise PolicyDenied(
            f"service key {keys[0].name!r} may not {right}", detail=f"This service key lacks the right {right!r}"
        )
    return tenants


def check_service_key(presented: str, keys: Iterable[ServiceKey], right: str) -> ServiceKey:
    """Return the key that was presented.

    Raises `InvalidToken` where it is none of *keys* (also where there are none: nobody learns which tenants exist),
    and `PolicyDenied` where it lacks *right*.
    """
    digest = _digest(presented)
    # Every key is compared, each in constant time: how long it takes says nothing about how near a guess was.
    matching = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    if not matching:
        raise InvalidToken("no service key of this tenant")
    if right not in matching[0].rights:
        raise PolicyDenied(
            f"service key {matching[0].name!r} may not {right}", detail=f"This service key lacks the right {right!r}"
        )
    return matching[0]


def _digest(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
