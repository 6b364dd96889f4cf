"""How a token differs from what the tenant files want, in words for the log: what is there, and what would be right.

Callers learn none of it. What a token says is quoted short and escaped, for nothing of it is verified yet.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from service.identity.jwk import VerifyingKey
from service.identity.jws import UnverifiedToken
from service.principal import Trust

QUOTED: Final = 100
"""Characters of a value, at most."""
LISTED: Final = 3
"""What the files want, at most: a thousand tenants may share an issuer."""


def quoted(value: object) -> str:
    """Return a value that a caller sent as it may stand in a log line."""
    text = value if isinstance(value, str) else str(value)
    return ascii(text[:QUOTED]) + ("…" if len(text) > QUOTED else "")


def listed(values: Collection[str]) -> str:
    """Return the first few."""
    more = len(values) - LISTED
    return ", ".join(islice(values, LISTED)) + (f" and {more} more" if more > 0 else "")


def of_issuer(unverified: object, trusts: Mapping[str, tuple[Trust, ...]]) -> str:
    """Return how an `iss` that no tenant trusts differs."""
    if not isinstance(unverified, str):
        return "the token names none"
    other = unverified[:-1] if unverified.endswith("/") else unverified + "/"
    if other in trusts:
        tenant = trusts[other][0].tenant
        return f"it is {quoted(unverified)}, tenant {tenant} has {quoted(other)}: write the slash as the token does"
    return f"it is {quoted(unverified)}, the tenant files have {listed([quoted(each) for each in islice(trusts, 99)])}"


def of_audience(
    unverified: Iterable[str], trusts: Sequence[Trust], audiences: Callable[[Trust], frozenset[str]]
) -> str:
    """Return how an `aud` differs that no tenant of the issuer takes."""
    wanted = [
        f"tenant {trust.tenant} wants {' or '.join(map(quoted, sorted(audiences(trust)))) or 'none'}"
        for trust in trusts
    ]
    return f"it is {listed([quoted(each) for each in sorted(unverified)]) or 'missing'}, {listed(wanted)}"


def of_algorithm(alg: str, trusts: Sequence[Trust]) -> str:
    """Return how an `alg` differs that no tenant of the issuer takes."""
    wanted = [f"tenant {trust.tenant} has {', '.join(sorted(trust.algorithms))}" for trust in trusts]
    return f"it is {quoted(alg)}, {listed(wanted)}"


def of_signature(parsed: UnverifiedToken, keys: Sequence[VerifyingKey]) -> str:
    """Return why none of an issuer's *keys* made the signature."""
    if parsed.kid is None or any(key.kid in (None, parsed.kid) and parsed.alg in key.algorithms for key in keys):
        return "another key did, or the token was changed on its way"
    known = [quoted(key.kid) for key in keys if key.kid is not None]
    return f"it names kid {quoted(parsed.kid)} ({quoted(parsed.alg)}), the issuer's keys are {listed(known) or 'none'}"


def of_kind(unverified: Any, wanted: str) -> str:
    """Return how a `typ` differs."""
    return f"it is {quoted(unverified)}, the tenant wants {quoted(wanted)}"
