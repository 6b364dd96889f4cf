"""A tenant, compiled: everything a decision needs, with nothing left to parse or to look up."""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import SecretStr

from service.contract import Flat, Path
from service.policy.expressions import Computed, Conditions, Expression
from service.principal import KeySource, Principal, ServiceKey, TokenCookie, Trust, Visitors
from service.session import Account, Limits, Window

LONGEST: Final = 366 * 86_400.0
"""Seconds: no tenant file can make a credential last longer."""


@dataclass(frozen=True, slots=True)
class Body:
    """Part of a create body: values that stand, and values that depend on the caller."""

    constant: Flat
    computed: Mapping[Path, Computed]
    layers: Mapping[Path, str]
    """Who wrote each value: `template standard`, `tenant`, `rule 'pro uploads'`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where `when` holds, `session` is merged over what came before, or the caller is denied."""

    name: str
    when: Expression
    session: Body | None
    deny: str | None


class Rules:
    """A tenant's rules, in order."""

    __slots__ = ("_conditions", "_each")

    def __init__(self, each: Iterable[Rule] = ()) -> None:
        self._each = tuple(each)
        self._conditions = Conditions([rule.when for rule in self._each])

    def __iter__(self) -> Iterator[Rule]:
        """Yield each."""
        return iter(self._each)

    def judged(self, activation: Any) -> Iterator[tuple[Rule, bool]]:
        """Yield each and whether it holds; raise `ExpressionError` at one of which that can't be said."""
        return zip(self._each, self._conditions.truths(activation), strict=True)


@dataclass(frozen=True, slots=True)
class Variant:
    """What *percent* of the users get instead; *account* where their sessions are issued, None: as everybody's."""

    percent: float
    session: Body | None
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A share of the users gets something else; who is in it is theirs to keep. One variant, or two."""

    name: str
    split: tuple[Variant, ...]

    def variant_of(self, tenant: str, subject: str) -> Variant | None:
        """Return what *subject* gets; None for those whom no variant covers.

        A user's point depends on tenant, rollout and user alone. The first variant covers the points from 0 up, the
        second those from 100 down: so either can grow, until they meet, and nobody who is in falls out.
        """
        digest = hashlib.blake2b(f"{tenant}\0{self.name}\0{subject}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2**64 * 100
        first, *second = self.split
        if point < first.percent:
            return first
        if second and point >= 100 - second[0].percent:
            return second[0]
        return None


@dataclass(frozen=True, slots=True)
class Bound:
    """What a caller may set a field to: one of `choices`, a number in a range, or text up to a length."""

    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None

    def allows(self, value: Any) -> bool:
        """Return whether *value* is within the bound. `True` is no 1 here."""
        if self.choices is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if self.max_length is not None:
            return isinstance(value, str) and len(value) <= self.max_length
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


@dataclass(frozen=True, slots=True)
class Pages:
    """The origins whose pages may call; those among `with_cookies` may send cookies along."""

    origins: frozenset[str] = frozenset()
    with_cookies: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's policy, ready to decide."""

    name: str
    trusts: tuple[Trust, ...]
    account: Account
    user: Expression | None
    pseudonym_key: SecretStr | None
    session: Body
    rules: Rules
    rollouts: tuple[Rollout, ...]
    client_may: Mapping[Path, Bound]
    limits: Limits
    expose_state_variables: bool
    on_drift: Literal["report", "cancel"]
    former_accounts: tuple[Account, ...] = ()
    """Where it has moved from, while sessions may still live there."""
    pages: Pages = Pages()
    cookie: TokenCookie | None = None
    visitors: "VisitorPolicy | None" = None
    service_keys: tuple[ServiceKey, ...] = ()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Return wherever sessions of the tenant are issued: for those whom no rollout moves first."""
        moved = [variant.account for rollout in self.rollouts for variant in rollout.split if variant.account]
        return tuple(dict.fromkeys([self.account, *moved]))

    @property
    def fence_for(self) -> float:
        """How long a logout must be remembered so that no credential of this tenant outlives it, in seconds."""
        ages = [trust.fence_for for trust in self.trusts]
        return max([*ages, self.visitors.who.max_age + 60.0 if self.visitors else 0.0])

    def policy_for(self, principal: Principal) -> "Tenant":
        """Return what decides about *principal*: visitors have rules of their own."""
        return self.visitors.policy if principal.visitor and self.visitors else self


@dataclass(frozen=True, slots=True)
class VisitorPolicy:
    """Who may come in without a login, and what they get."""

    who: Visitors
    policy: Tenant
    address_mints: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Policies:
    """All tenants of one load: a request sees one of these from beginning to end."""

    tenants: Mapping[str, Tenant]
    trusts: Mapping[str, tuple[Trust, ...]]
    """By issuer."""
    pages: Pages = Pages()
    """Of all tenants together."""
    service_keys: Mapping[bytes, tuple[ServiceKey, ...]] = field(default_factory=dict)
    """By the key's SHA-256: several tenants may share one."""
    with_cookies: tuple[Tenant, ...] = ()
    """Those to whom a caller may come with a cookie: a user's token, or a visitor's."""
    version: str = ""
    """A hash of the files, the same on every replica that read the same files. Secrets are no part of it."""
    secret_files: Mapping[pathlib.Path, tuple[int, int, int, int]] = field(default_factory=dict)
    """The files that secrets were read from, each as it was then (`outside.FileState`)."""

    def remember_for(self, tenant: str) -> float:
        """Return how long a logout of the tenant must be remembered, in seconds; also where it is in no file now."""
        known = self.tenants.get(tenant)
        return known.fence_for if known else LONGEST

    @property
    def key_sources(self) -> set[KeySource]:
        """Where the signing keys of all tenants' issuers come from."""
        return {trust.keys for trusts in self.trusts.values() for trust in trusts}
