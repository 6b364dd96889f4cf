"""What is allowed in tenant files and yet hardly meant: `check` warns of it."""

import re
from collections import defaultdict
from collections.abc import Mapping

from service.contract import SECONDS, Path, dotted, leaf
from service.policy.expressions import ExpressionError, Scope
from service.policy.tenant import Bound, Rule, Tenant

_CLAIM = re.compile(r"claims\.([A-Za-z_]\w*)|claims\[[\"']([^\"']+)[\"']\]")


def doubts(tenants: Mapping[str, Tenant]) -> list[str]:
    """Return a line for everything doubtful, the tenant named first."""
    found = [f"{tenant.name}: {doubt}" for tenant in tenants.values() for doubt in _of_one(tenant)]
    return [*found, *_shared_users(tenants)]


def _of_one(tenant: Tenant) -> list[str]:
    found = [*_dead_rules(tenant), *_wide_bounds(tenant.client_may)]
    if tenant.visitors:
        policy = tenant.visitors.policy
        found += [f"visitors: {each}" for each in (*_dead_rules(policy), *_wide_bounds(policy.client_may))]
    return found


def _dead_rules(tenant: Tenant) -> list[str]:
    """Rules that hold for nobody: never true, or behind one that denies everybody whom they are about."""
    found: list[str] = []
    denying: list[Rule] = []
    for rule in tenant.rules:
        truth = _constant_truth(rule, tenant.name)
        if truth is False:
            found.append(f"rule {rule.name!r} can never hold: `{rule.when.source}` is false for everybody")
        before = next(
            (r for r in denying if r.when.source == rule.when.source or _constant_truth(r, tenant.name)), None
        )
        if before:
            found.append(f"rule {rule.name!r} can never hold: rule {before.name!r} denies first")
        if rule.deny is not None and truth is not False:
            denying.append(rule)
    return found


def _constant_truth(rule: Rule, tenant: str) -> bool | None:
    """Return what a rule is for everybody; None where that depends on who asks, for what, or when."""
    if re.search(r"\b(claims|request|now)\b", rule.when.source):
        return None
    try:
        return bool(rule.when.evaluate(Scope({}, tenant, {}, 0.0).activation()))
    except ExpressionError:
        return False


def _wide_bounds(client_may: Mapping[Path, Bound]) -> list[str]:
    found = []
    for path, bound in client_may.items():
        check, name = leaf(path), f"client_may.{dotted(path)}"
        if check is None:
            continue
        edges = [edge for edge in (bound.minimum, bound.maximum) if edge is not None]
        outside = [value for value in (*(bound.choices or ()), *edges) if not _accepted(check, _whole(value))]
        if outside:
            found.append(f"{name} is wider than ChatKit's range: {', '.join(map(str, outside))} is refused upstream")
        if bound.minimum is not None and bound.maximum is not None and bound.minimum > bound.maximum:
            found.append(f"{name} allows nothing: min is over max")
        if path == SECONDS and bound.choices is None and bound.maximum is None:
            found.append(f"{name} is wider than ChatKit's range: without a max it allows more than 600 seconds")
    return found


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _accepted(check: object, value: object) -> bool:
    try:
        check.validate_python(value)  # type: ignore[attr-defined]
    except ValueError:
        return False
    return True


def _shared_users(tenants: Mapping[str, Tenant]) -> list[str]:
    """Tenants whose users would share threads: one upstream project, and one ChatKit user for the same claims."""
    by_user: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for tenant in tenants.values():
        if tenant.pseudonym_key is not None:
            continue
        claims = {"sub": "somebody"}
        for match in _CLAIM.finditer(tenant.user.source if tenant.user else ""):
            claims.setdefault(match[1] or match[2], "something")
        try:
            mapped = (
                tenant.user.evaluate(Scope(claims, tenant.name, {}, 0.0).activation())
                if tenant.user
                else f"{tenant.name}:somebody"
            )
        except ExpressionError:
            continue
        key = tenant.account.api_key.get_secret_value() if tenant.account.api_key else ""
        by_user[tenant.account.place, key, str(mapped)].append(tenant.name)
    return [
        f"{', '.join(names)}: the same caller is one ChatKit user in all of them, and they would share their threads; "
        "put the tenant into `user`"
        for names in by_user.values()
        if len(names) > 1
    ]
