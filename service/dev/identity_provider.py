"""A development identity provider: discovery, a key set, and tokens that the example tenants believe.

It signs whatever it is asked to. Nothing of it is reachable from `serve`.
"""

import hashlib
import json
import os
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ISSUER: Final = "http://127.0.0.1:8081"
"""The name that tenant files know it by. It keeps it where it listens on another port."""
LIFETIME: Final = 3600
"""Seconds that a token is good for."""


class NoKey(RuntimeError):  # noqa: N818
    """The file of the signing key holds something else; the text says what to do."""


class IdentityProvider:
    """Signs with a key that is kept in *directory*, so that `dev` and `token` agree on it."""

    def __init__(self, directory: Path) -> None:
        self._key = _load_key(directory / "identity-provider.pem")
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        # The thumbprint names the key (RFC 7638), so a new key is never taken for the old one.
        self._kid = _thumbprint(public)
        self._jwk = {**public, "kid": self._kid, "use": "sig", "alg": "ES256"}

    def token(self, audience: str, subject: str, claims: Mapping[str, Any], *, login: str | None = None) -> str:
        """Return an access token for *subject*; *claims* come on top. Each token is a login of its own."""
        now = int(time.time())
        payload = {
            "iss": ISSUER,
            "aud": audience,
            "sub": subject,
            "sid": login or secrets.token_hex(8),
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(8),
            **claims,
        }
        return jwt.encode(payload, self._key, algorithm="ES256", headers={"kid": self._kid, "typ": "at+jwt"})

    def app(self) -> Starlette:
        """Return the provider's HTTP side."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/jwks.json", self._key_set),
            ]
        )

    async def _configuration(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": ISSUER,
                "jwks_uri": f"{ISSUER}/jwks.json",
                "id_token_signing_alg_values_supported": ["ES256"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
            }
        )

    async def _key_set(self, _request: Request) -> Response:
        return JSONResponse({"keys": [self._jwk]}, headers={"cache-control": "max-age=300"})


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Written aside and linked into place: `dev` and `token` may start at once, and one key must win.
        aside = path.with_suffix(f".{os.getpid()}")
        aside.touch(mode=0o600)
        aside.write_bytes(pem)
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):  # its text may quote what it read
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NoKey(f"{path} holds no EC key; delete it and start again")
    return key


def _thumbprint(public: Mapping[str, Any]) -> str:
    members = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()
