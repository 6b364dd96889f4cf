"""The identity providers of docs/tenants.md: their names lead to a server of ours, their tokens have their shape."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.parts import Issuer
from support.forge import sign
from support.pages import save
from support.tokens import Signer

PAGE = "docs/tenants.md"
SECRET = "at-least-32-characters-of-the-project"
HOSTS = {
    "auth0": ("https://acme.eu.auth0.com", "/", "RS256"),
    "keycloak": ("https://sso.acme.example", "/realms/acme", "RS256"),
    "clerk": ("https://clerk.acme.example", "", "RS256"),
    "supabase": ("https://abcdefgh.supabase.co", "/auth/v1", "ES256"),
    "login": ("https://login.acme.example", "/", "RS256"),
}
"""A provider's host, the rest of its issuer's name, and how it signs."""


@dataclass
class Providers:
    """All of them, each below a path of its own."""

    server: Issuer
    signers: dict[str, Signer]

    @classmethod
    def start(cls) -> "Providers":
        server = Issuer()
        server.documents, signers = {}, {}
        for name, (_, path, alg) in HOSTS.items():
            issuer = f"{server.url}/{name}{path}"
            signer = signers[name] = Signer(issuer, alg=alg, kid=f"{name}-1")
            below = f"/{name}{path}".rstrip("/")
            keys = f"{below}/.well-known/jwks.json"
            configuration = {"issuer": issuer, "jwks_uri": server.url + keys}
            server.documents |= {keys: signer.jwks, f"{below}/.well-known/openid-configuration": configuration}
        return cls(server, signers)

    def save_page(self, folder: Path) -> Path:
        """Save the page's files, with the providers' hosts changed to ours; return the configuration's folder."""
        for path in save(PAGE, folder):
            text = path.read_text()
            for name, (host, _, _) in HOSTS.items():
                text = text.replace(host, f"{self.server.url}/{name}")
            path.write_text(text)
        return folder / "config"

    def token(self, name: str, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token of the provider's usual shape; a change to None takes a claim out."""
        claims = {**self.usual(name), **changes}
        kept = {claim: value for claim, value in claims.items() if value is not None}
        signer = self.signers[name]
        shown = {"alg": signer.alg, "kid": signer.kid, "typ": "JWT", **(header or {})}
        key = SECRET.encode() if shown["alg"] == "HS256" else signer.key
        return sign(shown["alg"], key, shown, kept)

    def usual(self, name: str) -> dict[str, Any]:
        now, issuer = int(time.time()), self.signers[name].issuer
        times = {"iss": issuer, "iat": now, "exp": now + 300}
        shapes: dict[str, dict[str, Any]] = {
            "auth0": {
                "sub": "auth0|5f7c",
                "aud": ["https://chat.acme.example", f"{issuer}userinfo"],
                "azp": "5Qw1nK7acmeClientId",
                "scope": "openid profile",
                "org_id": "org_acme",
                "https://acme.example/plan": "pro",
            },
            "keycloak": {
                "sub": "36fa0f91-f94d",
                "aud": ["chat-api", "account"],
                "typ": "Bearer",
                "azp": "acme-web",
                "sid": "2a88c258",
                "jti": "onrtac:d58f",
                "acr": "1",
                "scope": "email profile",
                "allowed-origins": ["https://app.acme.example"],
                "realm_access": {"roles": ["offline_access", "staff"]},
                "resource_access": {"account": {"roles": ["view-profile"]}},
            },
            "clerk": {
                "sub": "user_2abc",
                "sid": "sess_2def",
                "azp": "https://app.acme.example",
                "nbf": now - 10,
                "exp": now + 60,
                "fva": [0, -1],
                "v": 2,
            },
            "supabase": {
                "sub": "1b9d6bcd-bbfd",
                "aud": "authenticated",
                "role": "authenticated",
                "aal": "aal1",
                "session_id": "9b1deb4d",
                "email": "alice@example.com",
                "phone": "",
                "app_metadata": {"provider": "email"},
                "user_metadata": {},
                "amr": [{"method": "password", "timestamp": now}],
                "is_anonymous": False,
            },
            "login": {"sub": "alice", "aud": "acme-app", "sid": "s1"},
        }
        return {**times, **shapes[name]}

    def close(self) -> None:
        self.server.close()
