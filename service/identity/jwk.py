"""JWK Sets → keys that verify signatures, each bound to what it may verify (RFC 7517, RFC 8725 §3.1).

A published `oct` key is never used: a symmetric key that anyone can fetch signs for anyone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jwt import InvalidKeyError
from jwt.algorithms import Algorithm, get_default_algorithms

ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name[:2] in ("RS", "PS", "HS") or name in ("ES256", "ES384", "ES512", "EdDSA")
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE: Final = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}
MIN_RSA_BITS: Final = 2048
"""RFC 7518 §3.3."""
MAX_KEYS: Final = 100
"""Keys read from one set; the rest is ignored."""


class JwkSetError(ValueError):
    """The document is not a JWK Set with a key that we can use."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One public key, or one shared secret, and the algorithms it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Return whether the signature is this key's. An algorithm that isn't the key's own is never tried."""
        return alg in self.algorithms and ALGORITHMS[alg].verify(signing_input, self.key, signature)


def shared_secret(secret: str) -> VerifyingKey:
    """Return the key of an issuer that signs with a secret shared with us."""
    return VerifyingKey(None, frozenset({"HS256", "HS384", "HS512"}), secret.encode())


def read_jwk_set(document: Any) -> tuple[VerifyingKey, ...]:
    """Return the usable keys; unknown kinds are skipped (RFC 7517 §5). Raises `JwkSetError` if none is left."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise JwkSetError("not a JWK Set: no list of `keys`")
    keys = tuple(_usable(listed[:MAX_KEYS]))
    if not keys:
        raise JwkSetError("the JWK Set holds no usable key")
    return keys


def jwks_problem(document: Any) -> str | None:
    """Return what is wrong with a JWK Set; None where it holds a usable key."""
    try:
        read_jwk_set(document)
    except JwkSetError as error:
        return str(error)
    return None


def _usable(listed: Iterable[Any]) -> Iterable[VerifyingKey]:
    for jwk in listed:
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
            continue
        operations = jwk.get("key_ops", ["verify"])
        algorithms = _algorithms_of(jwk)
        if not algorithms or not isinstance(operations, list) or "verify" not in operations:
            continue
        kid = jwk.get("kid")
        try:
            key = ALGORITHMS[min(algorithms)].from_jwk(_public_part(jwk))
        except (InvalidKeyError, ValueError, TypeError, KeyError):
            continue
        if jwk["kty"] == "RSA" and key.key_size < MIN_RSA_BITS:
            continue
        yield VerifyingKey(kid if isinstance(kid, str) else None, algorithms, key)


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    kty, named = jwk.get("kty"), jwk.get("alg")
    fitting = _RSA if kty == "RSA" else _BY_CURVE.get((str(kty), str(jwk.get("crv"))), frozenset())
    if named is None:
        return fitting
    return fitting & {named} if isinstance(named, str) else frozenset()


def _public_part(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public half: a set that leaks its private one still yields no signing key."""
    return {name: value for name, value in jwk.items() if name in ("kty", "crv", "n", "e", "x", "y")}
