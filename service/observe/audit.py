"""The audit stream: who did what to which sessions, one JSON line an event, apart from the log.

Events: `mint`, `denial`, `cancel`, `logout`, `revoke`, `unblock`, `reload`. No secret is in any. Where a tenant asks
for pseudonyms its users are told apart by a keyed hash.
"""

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import SecretStr

from service.observe.logs import current_facts
from service.observe.sink import Sink

_CARRIED: Final = ("request_id", "trace_id", "client", "service_key")
"""Facts of the request under way that say how an event came about."""


class Audit:
    """Tells of events. *clock* is Unix seconds."""

    def __init__(self, sink: Sink, *, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._clock = clock

    def tell(self, event: str, *, tenant: str | None, **facts: Any) -> None:
        """Write one event down; facts that are None are left out."""
        line = {"stream": "audit", "time": _iso(self._clock()), "event": event, "tenant": tenant}
        request = current_facts()
        for name in _CARRIED:
            if name in request:
                line[name] = request[name]
        line |= {name: fact for name, fact in facts.items() if fact is not None}
        self._sink.write(orjson.dumps(line, default=str) + b"\n")


def subject_of(tenant: str, subject: str, key: SecretStr | None) -> str:
    """Return the subject as the audit stream tells it: under the tenant's pseudonym *key*, where it has one, a hash."""
    if key is None:
        return subject
    text = f"audit\0{tenant}\0{subject}".encode(errors="surrogatepass")
    return "hmac:" + hmac.new(key.get_secret_value().encode(), text, hashlib.sha256).hexdigest()


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
