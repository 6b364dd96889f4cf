"""Tokens put together by hand: any bytes as header and payload, signed or not, as an attacker would."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from jwt.algorithms import get_default_algorithms

ALGORITHMS = get_default_algorithms()


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def as_bytes(part: Any) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(part).encode()


def sign(alg: str, key: Any, header: Any, payload: Any) -> str:
    """A compact JWS over *header* and *payload*, each a JSON value or raw bytes."""
    signing_input = f"{encode(as_bytes(header))}.{encode(as_bytes(payload))}"
    return f"{signing_input}.{encode(ALGORITHMS[alg].sign(signing_input.encode(), key))}"


def unsigned(header: Any, payload: Any, signature: bytes = b"") -> str:
    return f"{encode(as_bytes(header))}.{encode(as_bytes(payload))}.{encode(signature)}"
