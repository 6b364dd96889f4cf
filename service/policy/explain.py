"""Why a caller gets what they get: the decision, told. It is `decide` itself that is asked, not a copy of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.contract import ANCHOR, USER, SessionWish, dotted, flatten
from service.errors import Refusal
from service.policy.decide import Trace, decide
from service.policy.tenant import Tenant
from service.principal import Principal, Trust

WIDEST = 48
"""Characters of a value in the table."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""
LIFETIME = 3600
"""Seconds of life of a token whose claims name no `exp`."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of the create body, and who set it last."""

    field: str
    value: Any
    set_by: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` answers; *code* and *reason* where the caller is denied."""

    tenant: str
    granted: bool
    user: str | None
    fields: tuple[Field, ...]
    steps: tuple[tuple[str, str], ...]
    body: Mapping[str, Any] | None
    code: str | None = None
    reason: str | None = None
    public: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "tenant": self.tenant,
            "granted": self.granted,
            "user": self.user,
            "body": self.body,
            "fields": [{"field": f.field, "value": f.value, "set_by": f.set_by} for f in self.fields],
            "steps": [{"step": step, "outcome": outcome} for step, outcome in self.steps],
            **({} if self.granted else {"code": self.code, "reason": self.reason, "public": self.public}),
        }


def explain(
    tenant: Tenant, claims: Mapping[str, Any], wishes: SessionWish, *, visitor: bool = False, now: float | None = None
) -> Explanation:
    """Decide for a token with these *claims* (taken as verified) and tell how.

    Raises `ValueError` where the claims name no subject, or the tenant has no visitors.
    """
    now = time.time() if now is None else now
    if visitor and tenant.visitors is None:
        raise ValueError(f"tenant {tenant.name!r} has no visitors")
    principal = _principal(tenant, claims, visitor=visitor, now=now)
    trace = Trace()
    try:
        grant = decide(tenant.policy_for(principal), principal, wishes, now=now, trace=trace)
    except Refusal as refusal:
        told = {"code": refusal.code, "reason": refusal.reason, "public": refusal.detail}
        return Explanation(
            tenant.name, granted=False, user=None, fields=(), steps=tuple(trace.steps), body=None, **told
        )
    given = {USER: "the user mapping", ANCHOR: "ChatKit"}
    fields = tuple(
        Field(dotted(path), value, given.get(path) or trace.layers.get(path, "ChatKit's default"))
        for path, value in flatten(grant.body).items()
    )
    return Explanation(
        tenant.name, granted=True, user=grant.user, fields=fields, steps=tuple(trace.steps), body=dict(grant.body)
    )


def as_table(told: Explanation) -> str:
    """Return it for people."""
    lines = [f"tenant {told.tenant}: {'granted' if told.granted else 'denied'}"]
    lines += [f"  {step} {outcome}" for step, outcome in told.steps]
    if not told.granted:
        return "\n".join([*lines, "", f"  {told.code}: {told.reason}", f"  the caller reads: {told.public}"])
    rows = [("field", "value", "set by"), *((f.field, _shown(f.value), f.set_by) for f in told.fields)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += ["", *(f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {by}" for name, value, by in rows)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _principal(tenant: Tenant, claims: Mapping[str, Any], *, visitor: bool, now: float) -> Principal:
    """Return who has these claims, as authentication would: by an entry that fits, with the subject that it reads."""
    if visitor:
        claims = {"visitor": True, "sub": "visitor:example", **claims}
    if not isinstance(claims.get("sub"), str):
        raise ValueError("the claims name no `sub`")  # noqa: TRY004  (a caller's mistake, not a caller's code)
    expires = claims.get("exp", now + LIFETIME)
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not now < expires < LAST_SECOND:
        raise ValueError("`exp` is no time in the future: such a token is refused")
    trust = None if visitor else _fitting(tenant, claims)
    subject = trust.subject(claims) if trust else claims["sub"]
    if not isinstance(subject, str) or not subject or (not visitor and subject.startswith("visitor:")):
        raise ValueError("the subject is no text, empty, or a visitor's: such a token is refused")
    return Principal(
        tenant=tenant.name,
        subject=subject,
        login=None,
        issued_at=now,
        expires_at=expires,
        claims=claims,
        ends_with_token=trust is not None and trust.session_ends_with_token,
        visitor=visitor,
    )


def _fitting(tenant: Tenant, claims: Mapping[str, Any]) -> Trust:
    """Return the first identity entry that `iss`, `aud`, `azp` (where the claims have them) and `match` fit."""
    aud = claims.get("aud", [])
    told = [aud] if isinstance(aud, str) else aud if isinstance(aud, list) else []
    audiences = {each for each in told if isinstance(each, str)} if "aud" in claims else None
    for trust in tenant.trusts:
        if claims.get("iss", trust.issuer) != trust.issuer or (
            audiences is not None and not audiences & trust.audiences
        ):
            continue
        if "azp" in claims and trust.authorized_parties and str(claims["azp"]) not in trust.authorized_parties:
            continue
        if trust.matches(claims):
            return trust
    raise ValueError("the claims fit no identity entry of the tenant: by `iss`, `aud`, `azp`, `match` nobody gets in")
