"""Take a compact JWS apart (RFC 7515 §3.1), strictly, before anything in it is believed.

Strictness is the point: a token that two parsers read differently is an attack. So: canonical base64url, no
duplicate keys, no NaN, no critical extensions, bounded size and depth.
"""

import json
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from service.errors import InvalidToken

MAX_TOKEN: Final = 16 * 1024
"""Bytes. Larger access tokens don't fit most servers' header limits either."""
MAX_NAME: Final = 256
"""Characters of a `kid`, a `sub` or a `sid`."""
SEGMENTS: Final = 3
_KINDS: Final = {
    1: ": an opaque token? The issuer gives out a JWT where it is asked for one with this service's audience",
    5: ": an encrypted token (JWE), which is not read",
}
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_FROM_STANDARD: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token of which nothing is verified yet: the names say so wherever it is used."""

    unverified_header: dict[str, Any] = field(repr=False)
    unverified_claims: dict[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    alg: str
    kid: str | None


def parse_token(token: str) -> UnverifiedToken:
    """Return the token's parts; raise `InvalidToken` whose reason says what is malformed."""
    if len(token) > MAX_TOKEN:
        raise InvalidToken("token over 16 KiB")
    if not token.isascii():
        raise InvalidToken("token is not ASCII")
    segments = token.split(".")
    if len(segments) != SEGMENTS:
        hint = _KINDS.get(len(segments), "")
        raise InvalidToken(f"{len(segments)} segments where a compact JWS has three{hint}")
    header, alg, kid = _header(segments[0])
    claims = _object(_decode(segments[1], "payload"), "payload")
    signature = _decode(segments[2], "signature")
    if not signature:
        raise InvalidToken("no signature")
    return UnverifiedToken(header, claims, f"{segments[0]}.{segments[1]}".encode(), signature, alg, kid)


@lru_cache(maxsize=256)
def _header(segment: str) -> tuple[dict[str, Any], str, str | None]:
    """Return the header, its `alg` and its `kid`. All tokens of a key have the same one; nobody changes it."""
    header = _object(_decode(segment, "header"), "header")
    # `b64` (RFC 7797) and every other extension that changes the meaning must be listed in `crit`; we know none.
    if "crit" in header or "b64" in header:
        raise InvalidToken("header has a critical extension")
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str):
        raise InvalidToken("header names no alg")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_NAME):
        raise InvalidToken("kid is not a short string")
    return header, alg, kid


def _decode(segment: str, what: str) -> bytes:
    try:
        raw = a2b_base64(segment.encode().translate(_TO_STANDARD) + b"=" * (-len(segment) % 4))
    except (NotBase64, ValueError):
        raise InvalidToken(f"{what} is not base64url") from None
    # Python's decoder skips what is outside the alphabet and ignores trailing bits; only the canonical form
    # survives the way back.
    if b2a_base64(raw, newline=False).translate(_FROM_STANDARD, b"=").decode() != segment:
        raise InvalidToken(f"{what} is not canonical base64url")
    return raw


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        # This one refuses NaN, lone surrogates, bad UTF-8 and deep nesting, and doesn't see duplicate keys.
        value = orjson.loads(raw)
        if orjson.dumps(value) != raw:  # written otherwise than most do, or a key is lost
            value = _PLAIN.decode(raw.decode())
    except (ValueError, TypeError, RecursionError):  # a TypeError: it can be read, but is too deep to be written
        raise InvalidToken(f"{what} is not a JSON object of the plain kind") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"{what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


_PLAIN: Final = json.JSONDecoder(object_pairs_hook=_unique)
