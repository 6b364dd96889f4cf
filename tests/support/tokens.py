"""An issuer's signing key, and tokens really signed with it."""

import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def make_key(alg: str, *, rsa_bits: int = 2048) -> PrivateKey:
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg]())
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)


class Signer:
    """Signs as one issuer with one key; `jwk` is the public half as the issuer would publish it."""

    def __init__(
        self,
        issuer: str = "https://login.example/",
        audience: str = "app",
        *,
        alg: str = "ES256",
        kid: str | None = "k1",
        key: PrivateKey | None = None,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.alg = alg
        self.kid = kid
        self.key = key or make_key(alg)
        public = get_default_algorithms()[alg].to_jwk(self.key.public_key(), as_dict=True)
        self.jwk: dict[str, Any] = {**public, "use": "sig", "alg": alg} | ({"kid": kid} if kid else {})

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.jwk]}

    def claims(self, subject: str = "alice", **changes: Any) -> dict[str, Any]:
        """Good claims; a change to None takes a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "iat": now,
            "exp": now + 600,
            "sid": secrets.token_hex(8),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, subject: str = "alice", *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A good token; *changes* are to its claims."""
        named = {"kid": self.kid} if self.kid else {}
        return jwt.encode(self.claims(subject, **changes), self.key, self.alg, {**named, **(headers or {})})
