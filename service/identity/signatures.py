"""Which of the configured identity entries a token is genuine for: by issuer, audience, algorithm, then signature."""

from collections.abc import Callable, Mapping
from typing import Final

from service.errors import InvalidToken, IssuerUnavailable
from service.identity.claims import audience_of
from service.identity.differences import of_algorithm, of_audience, of_issuer, of_signature
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
    *,
    without: bool = False,
) -> list[Trust]:
    """Return the trusts that would believe this token if its signature holds; raise `InvalidToken` if none would.

    *trusts* are by issuer; *audiences* says which audiences of a trust count for this kind of token. *without*: a trust
    that names none takes those tokens alone that have none.
    """
    unverified_issuer = parsed.unverified_claims.get("iss")
    if not isinstance(unverified_issuer, str) or unverified_issuer not in trusts:
        raise InvalidToken(f"iss is none of the configured issuers: {of_issuer(unverified_issuer, trusts)}")
    unverified_claims = parsed.unverified_claims
    unverified_audience = audience_of(unverified_claims) if "aud" in unverified_claims else frozenset[str]()
    of_the_issuer = trusts[unverified_issuer]
    by_audience = [
        trust
        for trust in of_the_issuer
        if audiences(trust) & unverified_audience or (without and not audiences(trust) and not unverified_audience)
    ]
    if not by_audience:
        unlike = of_audience(unverified_audience, of_the_issuer, audiences)
        raise InvalidToken(f"aud is none that the issuer's tenants expect: {unlike}")
    found = [trust for trust in by_audience if parsed.alg in trust.algorithms]
    if not found:
        raise InvalidToken(f"alg is not allowed for this issuer: {of_algorithm(parsed.alg, by_audience)}")
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
        at_hand = [key for source in results for key in keys.at_hand(source)]
        unlike = of_signature(parsed, at_hand)
        raise unavailable or InvalidToken(f"no key of the issuer made this signature: {unlike}")
    return genuine, unavailable


def _signed_by(keys: list[VerifyingKey], parsed: UnverifiedToken) -> bool:
    for key in keys[:MAX_TRIES]:  # noqa: SIM110  (a generator costs every mint another frame)
        if key.verifies(parsed.alg, parsed.signing_input, parsed.signature):
            return True
    return False
