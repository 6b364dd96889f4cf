"""A checked tenant file → Tenant: expressions compiled, constants held against the contract."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from pydantic import ValidationError

from service import contract
from service.contract import LEAVES, dotted, leaf
from service.policy.complaints import plain
from service.policy.expressions import TEXT, TRUTH, Computed, Expression, ExpressionError, parse_value
from service.policy.model import (
    BoundEntry,
    QuotaEntry,
    RangeBound,
    RolloutEntry,
    RuleEntry,
    TenantFile,
    TextBound,
    UpstreamEntry,
    VisitorsEntry,
)
from service.policy.outside import Defaults, Outside
from service.policy.source import Mistake, Route
from service.policy.tenant import Body, Bound, Pages, Rollout, Rule, Rules, Tenant, Variant, VisitorPolicy
from service.principal import ServiceKey, TokenCookie, Visitors
from service.session import Account, Limits, Window

Locate = Callable[[Route, str], Mistake]
WORKFLOW: contract.Path = ("workflow", "id")
SECONDS_IN = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

SHORT: Final = 256
"""Characters of a text that tenants may share."""


class Compiling:
    """One tenant file on its way to a Tenant. Mistakes are gathered, so that one run reports them all."""

    def __init__(
        self,
        file: TenantFile,
        locate: Locate,
        layer_of: Callable[[Route], str],
        mistakes: list[Mistake],
        defaults: Defaults,
    ) -> None:
        self.file = file
        self.locate = locate
        self.layer_of = layer_of
        self.mistakes = mistakes
        self.defaults = defaults

    def tenant(self) -> Tenant | None:
        """Return the tenant; None where a mistake was added."""
        before = len(self.mistakes)
        file = self.file
        session = self.body(file.session, ("session",))
        wrong_already = {("workflow",), WORKFLOW} & contract.flatten(file.session).keys()
        if not ({WORKFLOW} & {*session.constant, *session.computed} or wrong_already):
            self.wrong(("session",), "`workflow.id` is missing: ChatKit needs to know what to run")
        outside = Outside(file, self.wrong, self.expression, self.defaults)
        tenant = Tenant(
            name=file.tenant,
            trusts=outside.trusts(),
            account=outside.account(file.upstream, ("upstream",)),
            former_accounts=outside.former_accounts(),
            user=self.expression(file.user, TEXT, ("user",)),
            pseudonym_key=outside.pseudonym_key(),
            session=session,
            rules=self.rules(file.rules, ("rules",)),
            rollouts=self.rollouts(file.rollout, ("rollout",), outside.account),
            client_may=self.client_may(file.client_may, ("client_may",)),
            limits=_limits(file.quota),
            expose_state_variables=file.expose_state_variables,
            on_drift=file.on_drift,
            pages=_pages(file, self.defaults.pages),
            cookie=TokenCookie(file.tenant, file.cookie.name, frozenset(file.cookie.origins)) if file.cookie else None,
            service_keys=tuple(
                ServiceKey(file.tenant, key.name, bytes.fromhex(key.sha256), frozenset(key.may))
                for key in file.service_keys
            ),
        )
        if file.visitors:
            tenant = replace(tenant, visitors=self.visitors(file.visitors, tenant))
        return tenant if len(self.mistakes) == before else None

    def wrong(self, route: Route, message: str) -> None:
        """Add a mistake."""
        self.mistakes.append(self.locate(route, message))

    def expression(
        self, source: str | None, kinds: frozenset[str], route: Route, *, who: bool = True
    ) -> Expression | None:
        """Compile; None where there is nothing to compile or it is wrong."""
        if source is None:
            return None
        try:
            return Expression(source, kinds, who=who)
        except ExpressionError as error:
            self.wrong(route, str(error))
            return None

    def body(self, tree: Mapping[str, Any], route: Route, layer: str | None = None) -> Body:
        """Return part of a create body, its constants checked against the contract. *layer* None: as written."""
        constant: dict[contract.Path, Any] = {}
        computed: dict[contract.Path, Computed] = {}
        layers: dict[contract.Path, str] = {}
        for path, value in contract.flatten(tree).items():
            check = leaf(path)
            layers[path] = layer or self.layer_of((*route, *path))
            if path == contract.USER:
                self.wrong((*route, *path), "`user` is mapped by the tenant's own `user:`, not inside `session`")
            elif check is None:
                self.wrong((*route, *path), f"unknown field `{dotted(path)}`{_nearest(path)}")
            elif isinstance(value, str) and "${" in value:
                self._computed(value, path, route, constant, computed)
            else:
                constant[path] = value
                self._check(check, value, (*route, *path))
        if len([path for path in [*constant, *computed] if path[:2] == contract.STATE_VARIABLES]) > 64:  # noqa: PLR2004
            self.wrong((*route, *contract.STATE_VARIABLES), "at most 64 state variables")
        return Body(_shared(constant), computed, layers)

    def _computed(
        self,
        text: str,
        path: contract.Path,
        route: Route,
        constant: dict[contract.Path, Any],
        computed: dict[contract.Path, Computed],
    ) -> None:
        try:
            value = parse_value(text)
        except ExpressionError as error:
            self.wrong((*route, *path), str(error))
            return
        if isinstance(value, str):
            constant[path] = value
            self._check(leaf(path), value, (*route, *path))
        else:
            computed[path] = value

    def _check(self, check: Any, value: Any, route: Route) -> None:
        try:
            check.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            self.wrong(route, f"`{route[-1]}`: {plain(first)}")

    def visitors(self, entry: VisitorsEntry, tenant: Tenant) -> VisitorPolicy:
        """Compile what people get who are not logged in: the tenant's session with theirs merged over it."""
        if not self.defaults.visitor_keys:
            self.wrong(
                ("visitors",),
                "visitors need CHATKIT_MINT_VISITOR_KEYS, which signs their cookies: 32 random characters or more",
            )
        own = self.body(entry.session, ("visitors", "session"), "visitors")
        kept = {path: compute for path, compute in tenant.session.computed.items() if path not in own.constant}
        constant = {path: value for path, value in tenant.session.constant.items() if path not in own.computed}
        policy = replace(
            tenant,
            session=Body(
                {**constant, **own.constant}, {**kept, **own.computed}, {**tenant.session.layers, **own.layers}
            ),
            rollouts=(),
            rules=self.rules(entry.rules, ("visitors", "rules")),
            client_may=self.client_may(entry.client_may, ("visitors", "client_may")),
            limits=_limits(entry.quota),
            user=None,
        )
        origins = frozenset(entry.origins) | self.defaults.pages
        who = Visitors(self.file.tenant, origins, entry.max_age_days * SECONDS_IN["day"])
        return VisitorPolicy(who, policy, tuple(_window(rate) for rate in entry.quota.address_mints))

    def rules(self, entries: Sequence[RuleEntry], route: Route) -> Rules:
        """Compile the rules, in order."""
        rules = []
        for index, entry in enumerate(entries):
            when = self.expression(entry.when, TRUTH, (*route, index, "when"), who=False)
            session = (
                self.body(entry.session, (*route, index, "session"), f"rule {entry.name!r}")
                if entry.session is not None
                else None
            )
            if when:
                rules.append(Rule(entry.name, when, session, entry.deny))
        return Rules(rules)

    def rollouts(
        self, entries: Sequence[RolloutEntry], route: Route, account: Callable[[UpstreamEntry, Route], Account]
    ) -> tuple[Rollout, ...]:
        """Compile the rollouts. Two of one name would put the same users into both."""
        rollouts: list[Rollout] = []
        for index, entry in enumerate(entries):
            if entry.name in [rollout.name for rollout in rollouts]:
                self.wrong((*route, index, "name"), f"there is a rollout {entry.name!r} already")
            split = []
            for number, variant in enumerate(entry.split):
                place, layer = (*route, index, "split", number), f"rollout {entry.name!r}"
                split.append(
                    Variant(
                        variant.percent,
                        self.body(variant.session, (*place, "session"), layer) if variant.session is not None else None,
                        account(variant.upstream, (*place, "upstream")) if variant.upstream else None,
                    )
                )
            rollouts.append(Rollout(entry.name, tuple(split)))
        return tuple(rollouts)

    def client_may(self, entries: Mapping[str, BoundEntry], route: Route) -> dict[contract.Path, Bound]:
        """Compile what the caller may ask for."""
        bounds: dict[contract.Path, Bound] = {}
        for name, entry in entries.items():
            path = tuple(name.split(".", 2)) if name.startswith("workflow.state_variables.") else tuple(name.split("."))
            if leaf(path) is None or path in (contract.USER, contract.ANCHOR):
                self.wrong((*route, name), f"unknown field `{name}`{_nearest(path)}")
            else:
                bounds[path] = _bound(entry)
        return bounds


def _window(rate: str) -> Window:
    count, _, unit = rate.partition("/")
    return Window(int(count), SECONDS_IN[unit])


def _pages(file: TenantFile, welcome: frozenset[str]) -> Pages:
    """Return whose scripts may call: who may use a cookie may call, and the pages that are *welcome* anyway."""
    with_cookies = frozenset(file.cookie.origins if file.cookie else ()) | (
        frozenset(file.visitors.origins) | welcome if file.visitors else frozenset()
    )
    return Pages(with_cookies | welcome | frozenset(file.cors.origins if file.cors else ()), with_cookies)


def _shared(constant: contract.Flat) -> contract.Flat:
    """Return an equal mapping, which nobody changes: tenants of one template have one, which stays in caches."""
    if all(
        isinstance(value, bool | int) or (isinstance(value, str) and len(value) < SHORT) for value in constant.values()
    ):
        return _one_of(*chain(*constant.items()))
    return constant  # too long to be kept for others, or wrong


@lru_cache(maxsize=16_384, typed=True)
def _one_of(*flat: Any) -> contract.Flat:
    """Return paths and values, in turns, as a mapping. The types of values count: 1 is not true."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _limits(quota: QuotaEntry) -> Limits:
    live = quota.live_sessions
    return Limits(
        mints=tuple(_window(rate) for rate in quota.mints),
        tenant_mints=tuple(_window(rate) for rate in quota.tenant_mints),
        live=live.max if live else None,
        excess=live.excess if live else "refuse",
    )


def _bound(entry: BoundEntry) -> Bound:
    if isinstance(entry, RangeBound):
        return Bound(minimum=entry.min, maximum=entry.max)
    if isinstance(entry, TextBound):
        return Bound(max_length=entry.max_length)
    return Bound(choices=(True, False) if isinstance(entry, bool) else tuple(entry))


def _nearest(path: contract.Path) -> str:
    below = [dotted(each) for each in LEAVES if each[: len(path)] == path]
    if below:
        return f"; it is a map, whose fields are {', '.join(f'`{each}`' for each in below)}"
    near = get_close_matches(dotted(path), [dotted(each) for each in LEAVES], 1)
    return f"; did you mean `{near[0]}`?" if near else ""
