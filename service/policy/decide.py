"""What this principal may have now. Pure: no I/O, no clock of its own, the same answer every time."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from service import contract
from service.contract import ANCHOR, CREATE, MAX_SECONDS, SECONDS, USER, Path, dotted, flatten, unflatten
from service.errors import PolicyDenied, TokenExpired, UserMismatch
from service.policy.expressions import ExpressionError, Scope
from service.policy.tenant import Body, Tenant, Variant
from service.principal import Principal
from service.session import Account, Grant


@dataclass(slots=True)
class Trace:
    """What `explain` tells of a decision: who set each value, and what became of each rule and rollout."""

    layers: dict[Path, str] = field(default_factory=dict)
    steps: list[tuple[str, str]] = field(default_factory=list)


def decide(
    tenant: Tenant,
    principal: Principal,
    wishes: contract.SessionWish,
    *,
    now: float,
    trace: Trace | None = None,
) -> Grant:
    """Return what *tenant* grants *principal*, given the caller's *wishes*; *now* is in Unix seconds.

    In this order, each over what came before: templates and tenant, rules, rollouts, the caller's wishes, the clamp
    by the token's expiry. *trace* is filled with who set what.

    Raises `PolicyDenied` (by rule, by a wish outside `client_may`, or because an expression has no value: in
    doubt, no), `UserMismatch`, and `TokenExpired` where the token's end leaves no whole second for a session.
    """
    try:
        activation = Scope(principal.claims, tenant.name, wishes, now).activation()
        user = _map_user(tenant, principal, activation)
        fields = _evaluate(tenant.session, activation, trace)
        _apply_rules(tenant, activation, fields, trace)
        account = _apply_rollouts(tenant, principal, activation, fields, trace)
    except ExpressionError as error:
        raise PolicyDenied(str(error)) from None
    fields.setdefault(SECONDS, MAX_SECONDS)
    if wishes:
        _grant_wishes(tenant, principal, user, fields, flatten(wishes), trace)
    fields[USER] = user
    fields[ANCHOR] = "created_at"
    if principal.ends_with_token:
        _clamp(principal, fields, now, trace)
    try:
        body = CREATE.validate_python(unflatten(fields))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise PolicyDenied(f"{dotted(first['loc'])}: {first['msg']} (computed by the policy)") from None
    return Grant(
        tenant=tenant.name,
        user=user,
        body=body,
        account=account,
        limits=tenant.limits,
        expose_state_variables=tenant.expose_state_variables,
        on_drift=tenant.on_drift,
    )


def _clamp(principal: Principal, fields: dict[Path, Any], now: float, trace: Trace | None) -> None:
    left = int(principal.expires_at - now)
    if left < 1:
        raise TokenExpired("the token ends within a second, and the session would end with it")
    if isinstance(fields[SECONDS], int) and left < fields[SECONDS]:
        fields[SECONDS] = left
        if trace:
            trace.layers[SECONDS] = "the token's expiry"


def _map_user(tenant: Tenant, principal: Principal, activation: Any) -> str:
    """Map the app's user to ChatKit's. The tenant is in it: threads follow `user` across a whole project."""
    mapped: str = tenant.user.evaluate(activation) if tenant.user else f"{tenant.name}:{principal.subject}"
    if tenant.pseudonym_key is None:
        return mapped
    key = tenant.pseudonym_key.get_secret_value().encode()
    try:
        return hmac.new(key, f"{tenant.name}\0{mapped}".encode(), hashlib.sha256).hexdigest()
    except UnicodeEncodeError:
        raise ExpressionError("the user is text that UTF-8 can't carry") from None


def _apply_rules(tenant: Tenant, activation: Any, fields: dict[Path, Any], trace: Trace | None) -> None:
    for rule, holds in tenant.rules.judged(activation):
        if trace:
            trace.steps.append((f"rule {rule.name!r}", "holds" if holds else "does not hold"))
        if not holds:
            continue
        if rule.deny is not None:
            raise PolicyDenied(f"rule {rule.name!r} denies", detail=rule.deny)
        if rule.session is not None:
            fields |= _evaluate(rule.session, activation, trace)


def _apply_rollouts(
    tenant: Tenant, principal: Principal, activation: Any, fields: dict[Path, Any], trace: Trace | None
) -> Account:
    """Merge what the rollouts give over *fields*; return where the session is issued."""
    account = tenant.account
    for rollout in tenant.rollouts:
        variant = rollout.variant_of(tenant.name, principal.subject)
        if trace:
            trace.steps.append((f"rollout {rollout.name!r}", _told(variant)))
        if variant is not None:
            account = variant.account or account
            if variant.session is not None:
                fields |= _evaluate(variant.session, activation, trace)
    return account


def _told(variant: Variant | None) -> str:
    if variant is None:
        return "not in it"
    return f"in it; sessions from: {variant.account.kind}" if variant.account else "in it"


def _evaluate(body: Body, activation: Any, trace: Trace | None) -> dict[Path, Any]:
    fields = dict(body.constant)
    for path, compute in body.computed.items():
        fields[path] = compute(activation)
    if trace:
        trace.layers |= body.layers
    return fields


def _grant_wishes(
    tenant: Tenant,
    principal: Principal,
    user: str,
    fields: dict[Path, Any],
    wishes: Mapping[Path, Any],
    trace: Trace | None,
) -> None:
    for path, wish in wishes.items():
        if path == USER:
            if wish not in (principal.subject, user):
                raise UserMismatch(field="user")
        elif path == ANCHOR or (type(fields.get(path)) is type(wish) and fields.get(path) == wish):
            continue  # asks for what the policy gives anyway
        elif (bound := tenant.client_may.get(path)) is None or not bound.allows(wish):
            raise PolicyDenied(
                f"the wish for {dotted(path)} is outside client_may",
                detail=f"The policy does not let the caller set {dotted(path)} to this value",
                field=dotted(path),
            )
        else:
            fields[path] = wish
            if trace:
                trace.layers[path] = "the caller's wish"
