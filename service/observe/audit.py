"""The audit stream: who did what to which sessions, one JSON line an event, apart from the log.

Events: `mint`, `denial`, `cancel`, `logout`, `revoke`, `unblock`, `reload`; docs/audit.md has their fields. No secret
is in any. Where a tenant asks for pseudonyms its users and their logins are told apart by keyed hashes.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final

from pydantic import SecretStr
from starlette.datastructures import Address

from service.errors import Refusal
from service.observe.logs import current_facts, to_line
from service.observe.sink import Sink
from service.observe.timestamps import to_millis

_CARRIED: Final = ("request_id", "trace_id", "client", "service_key")
"""Facts of the request under way that say how an event came about."""


class Audit:
    """Tells of events. *clock* is Unix seconds."""

    def __init__(self, sink: Sink, *, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._clock = clock

    def tell(self, event: str, *, tenant: str | None, **facts: Any) -> None:
        """Write one event down; facts that are None are left out."""
        line = {"stream": "audit", "time": to_millis(self._clock()), "event": event, "tenant": tenant}
        request = current_facts()
        for name in _CARRIED:
            if name in request:
                line[name] = request[name]
        line |= {name: fact for name, fact in facts.items() if fact is not None}
        self._sink.write(to_line(line) + b"\n")

    def denials(self, action: str, client: Address | None, **facts: Any) -> "Denials":
        """Tell of an *action* that is refused in here, with what is in the dictionary by then.

        Where nobody is known who asks, the *client*'s address is all there is: set it to None once somebody is.
        """
        return Denials(self, action, {"client": client.host if client else None, **facts})


class Denials:
    """A context that tells the audit stream of a refusal. Half as dear as a generator's, and every request has one."""

    __slots__ = ("_action", "_audit", "_known")

    def __init__(self, audit: Audit, action: str, known: dict[str, Any]) -> None:
        self._audit = audit
        self._action = action
        self._known = known

    def __enter__(self) -> dict[str, Any]:
        """Return what is known so far, to be added to."""
        return self._known

    def __exit__(self, _kind: object, refusal: object, _traceback: object) -> None:
        """Tell of a refusal, which goes on its way."""
        if isinstance(refusal, Refusal):
            told = {"tenant": None, **self._known, "action": self._action}
            self._audit.tell("denial", **told, code=refusal.code, reason=refusal.reason)


def named(tenant: str, key: SecretStr | None, *, subject: str | None, login: str | None = None) -> dict[str, Any]:
    """Return a user as the stream tells of one: under the tenant's pseudonym *key*, where it has one, keyed hashes."""
    if key is not None:
        subject = subject and _hash(key, f"audit\0{tenant}\0{subject}")
        login = login and _hash(key, f"audit login\0{tenant}\0{login}")
    return {"tenant": tenant, "subject": subject, "login": login}


def _hash(key: SecretStr, text: str) -> str:
    made = hmac.new(key.get_secret_value().encode(), text.encode(errors="surrogatepass"), hashlib.sha256)
    return f"hmac:{made.hexdigest()}"
