"""Which of the configured identity entries a token is genuine for: by issuer, audience, algorithm, then signature."""

from collections.abc import Callable, Mapping
from typing import Final

from service.errors import InvalidToken, IssuerUnavailable
from service.identity.claims import audience_of
from service.identity.jwk import VerifyingKey
from service.identity.jws import UnverifiedToken
from service.identity.keys import KeyCache
from service.principal import KeySource, Trust

MAX_TRIES: Final = 16
"""Signature checks for one token: the bound on what a token without a `kid` can cost."""


def believing(
    parsed: UnverifiedToken,
    trusts: Mapping[str, tuple[Trust, ...]],
    audiences: Callable[[Trust], frozenset[str]],
) -> list[Trust]:
    """Return the trusts that would believe this token if its signature holds; raise `InvalidToken` if none would.

    *trusts* are by issuer; *audiences* says which audiences of a trust count for this kind of token.
    """
    unverified_issuer = parsed.unverified_claims.get("iss")
    if not isinstance(unverified_issuer, str) or unverified_issuer not in trusts:
        raise InvalidToken("iss is none of the configured issuers")
    unverified_audience = audience_of(parsed.unverified_claims)
    by_audience = [trust for trust in trusts[unverified_issuer] if audiences(trust) & unverified_audience]
    if not by_audience:
        raise InvalidToken("aud is none that the issuer's tenants expect")
    found = [trust for trust in by_audience if parsed.alg in trust.algorithms]
    if not found:
        raise InvalidToken("alg is not allowed for this issuer")
    return found


async def verified(
    keys: KeyCache, parsed: UnverifiedToken, believers: list[Trust]
) -> tuple[list[Trust], IssuerUnavailable | None]:
    """Return the trusts whose own keys made the signature; and, where others' keys can't be had now, why.

    Raises `InvalidToken` where there are none, `IssuerUnavailable` where that may be for want of keys.
    """
    results: dict[KeySource, bool] = {}
    unavailable: IssuerUnavailable | None = None
    for trust in believers:
        if trust.keys in results:
            continue
        try:
            candidates = await keys.candidates(trust.keys, parsed.kid, parsed.alg)
        except IssuerUnavailable as error:
            results[trust.keys], unavailable = False, error
            continue
        results[trust.keys] = _signed_by(candidates, parsed) or _signed_by(
            await keys.renewed(trust.keys, parsed.kid, parsed.alg), parsed
        )
    genuine = [trust for trust in believers if results[trust.keys]]
    if not genuine:
        raise unavailable or InvalidToken("no key of the issuer made this signature")
    return genuine, unavailable


def _signed_by(keys: list[VerifyingKey], parsed: UnverifiedToken) -> bool:
    return any(key.verifies(parsed.alg, parsed.signing_input, parsed.signature) for key in keys[:MAX_TRIES])
