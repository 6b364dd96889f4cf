"""What is allowed in tenant files and yet hardly meant: `check` warns of it."""

import re
from collections import defaultdict
from collections.abc import Mapping

from service.contract import SECONDS, Path, dotted, leaf
from service.policy.expressions import ExpressionError, Scope
from service.policy.tenant import Bound, Rule, Tenant

SAMPLES = ("x", "1x", "11x", "-x", "2x", "b", "ab")
"""Names that meet where a tenant's name and a claim are put together without a separator."""
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
    """Users who would share threads: history follows `user` through a whole upstream project, whatever the key."""
    found: list[str] = []
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for tenant in tenants.values():
        mapped = {name: user for name in SAMPLES if (user := _mapped(tenant, name)) is not None}
        if len(mapped) > 1 and len(set(mapped.values())) == 1:
            found.append(f"{tenant.name}: every caller is one ChatKit user; let `user` depend on a claim")
        if tenant.pseudonym_key is None:  # a pseudonym is made of the tenant's name too
            for user in set(mapped.values()):
                owners[tenant.account.place, user].append(tenant.name)
    shared = {", ".join(names) for names in owners.values() if len(names) > 1}
    return [
        *found,
        *(
            f"{names}: a caller of each can be one ChatKit user, and they would share their threads; "
            "let `user` begin with the tenant and a separator"
            for names in sorted(shared)
        ),
    ]


def _mapped(tenant: Tenant, name: str) -> str | None:
    """Return the ChatKit user of somebody all of whose claims are *name*; None where there is none."""
    if tenant.user is None:
        return f"{tenant.name}:{name}"
    claims = {"sub": name, **{match[1] or match[2]: name for match in _CLAIM.finditer(tenant.user.source)}}
    try:
        return str(tenant.user.evaluate(Scope(claims, tenant.name, {}, 0.0).activation()))
    except ExpressionError:
        return None
