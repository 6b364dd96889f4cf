"""Whatever bytes come as a token: 401, and nothing else."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidToken
from service.identity.authenticate import Authenticator
from service.identity.jws import parse_token
from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.principal import InlineJwks, Trust
from support.forge import as_bytes, encode, sign
from support.tokens import Signer

SIGNER = Signer()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
CLAIM_NAMES = ["iss", "aud", "sub", "exp", "iat", "nbf", "sid", "events", "nonce", "typ"]


def trusts() -> Mapping[str, tuple[Trust, ...]]:
    trust = Trust(
        tenant="t",
        issuer=SIGNER.issuer,
        audiences=frozenset({"app"}),
        algorithms=frozenset({"ES256"}),
        keys=InlineJwks(as_bytes(SIGNER.jwks).decode()),
        matches=lambda _: True,
        subject=lambda claims: claims["sub"],
        login=lambda claims: claims.get("sid"),
    )
    return {SIGNER.issuer: (trust,)}


def outcome(token: str) -> str:
    """What becomes of a token: the refusal's code, or the subject."""

    async def ask() -> str:
        cache = KeyCache(httpx2.MockTransport(lambda _: httpx2.Response(500)), Metrics())
        try:
            principal = await Authenticator(cache, clock=lambda: SIGNER.claims()["iat"]).principal(
                token, trusts(), tenant=None
            )
        except InvalidToken as refusal:
            return refusal.code
        return principal.subject

    return asyncio.run(ask())


@given(st.text())
def test_any_text_is_an_invalid_token(text: str) -> None:
    assert outcome(text) == "invalid_token"


@given(st.binary())
def test_any_bytes_are_an_invalid_token(raw: bytes) -> None:
    assert outcome(raw.decode("latin-1")) == "invalid_token"


@given(st.binary(), st.binary(), st.binary())
def test_any_three_segments_are_an_invalid_token(header: bytes, payload: bytes, signature: bytes) -> None:
    assert outcome(f"{encode(header)}.{encode(payload)}.{encode(signature)}") == "invalid_token"


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "jku"]), JSON), JSON)
def test_any_unsigned_json_is_an_invalid_token(header: dict[str, Any], payload: Any) -> None:
    token = f"{encode(as_bytes(header))}.{encode(as_bytes(payload))}.{encode(b'x' * 64)}"
    assert outcome(token) == "invalid_token"


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(CLAIM_NAMES), JSON, min_size=1))
def test_any_claims_under_a_true_signature_are_refused_or_harmless(changes: dict[str, Any]) -> None:
    """Whatever the issuer signs: never another exception, and a principal only with a proper subject."""
    token = sign("ES256", SIGNER.key, {"alg": "ES256", "kid": "k1"}, {**SIGNER.claims(), **changes})
    found = outcome(token)
    refused = {"invalid_token", "token_expired"} if "exp" in changes else {"invalid_token"}
    assert found in refused or found == changes.get("sub", "alice")


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_token_with_any_byte_changed_is_refused(position: int, change: int) -> None:
    good = SIGNER.token()
    at = position % len(good)
    letter = chr((ord(good[at]) + change) % 256)
    assert outcome(good[:at] + letter + good[at + 1 :]) == "invalid_token"


def test_the_unchanged_token_is_let_in() -> None:
    assert outcome(SIGNER.token()) == "alice"


@pytest.mark.parametrize("size", [16 * 1024, 16 * 1024 + 1])
def test_tokens_are_bounded(size: int) -> None:
    with pytest.raises(InvalidToken, match="over 16 KiB" if size > 16 * 1024 else "segments"):
        parse_token("x" * size)
