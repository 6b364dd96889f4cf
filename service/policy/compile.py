"""A checked tenant file → Tenant: expressions compiled, secrets fetched, constants held against the contract."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr, ValidationError

from service import contract
from service.contract import LEAVES, dotted, leaf
from service.policy.expressions import TEXT, TRUTH, Computed, Expression, ExpressionError, Scope, parse_value
from service.policy.model import (
    BoundEntry,
    IdentityEntry,
    QuotaEntry,
    RangeBound,
    RolloutEntry,
    RuleEntry,
    SecretRef,
    TenantFile,
    TextBound,
    VisitorsEntry,
)
from service.policy.source import Mistake, Route
from service.policy.tenant import Body, Bound, Rollout, Rule, Tenant, Variant, VisitorPolicy
from service.principal import (
    Claims,
    Discovery,
    InlineJwks,
    JwksFile,
    JwksUrl,
    KeySource,
    ServiceKey,
    SharedSecret,
    TokenCookie,
    Trust,
    Visitors,
)
from service.session import Account, Limits, Window
from service.settings import is_header_safe

Locate = Callable[[Route, str], Mistake]
SECONDS_IN = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
MIN_SECRET = 32
"""Bytes of an HS secret and of a pseudonym key (RFC 7518 §3.2)."""
NOT_HERE = "not-set-here-" + "0" * MIN_SECRET
"""In the place of a secret, where none is needed."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What tenant files may refer to: the environment, and OpenAI's usual variables."""

    environ: Mapping[str, str]
    openai_api_key: SecretStr | None
    openai_base_url: str
    jwks_problem: Callable[[Any], str | None]
    """Says what is wrong with a JWK Set; None where it holds a usable key."""
    secrets_needed: bool = True
    """False where nothing is signed, verified or sent: a secret or key file that isn't here is then no mistake."""
    visitor_keys: bool = False
    """Whether there are keys to sign visitors' cookies with."""


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
        named = ("workflow", "id") in session.constant or ("workflow", "id") in session.computed
        if not named:
            self.wrong(("session",), "`workflow.id` is missing: ChatKit needs to know what to run")
        self.one_subject_each()
        tenant = Tenant(
            name=file.tenant,
            trusts=tuple(t for i, entry in enumerate(file.identity) if (t := self.trust(entry, ("identity", i)))),
            account=self.account(),
            user=self.expression(file.user, TEXT, ("user",)),
            pseudonym_key=self.long_secret(file.pseudonymous.key, ("pseudonymous", "key"))
            if file.pseudonymous
            else None,
            session=session,
            rules=self.rules(file.rules, ("rules",)),
            rollouts=self.rollouts(file.rollout, ("rollout",)),
            client_may=self.client_may(file.client_may, ("client_may",)),
            limits=_limits(file.quota),
            expose_state_variables=file.expose_state_variables,
            on_drift=file.on_drift,
            cookie=TokenCookie(file.tenant, file.cookie.name, frozenset(file.cookie.origins)) if file.cookie else None,
            service_keys=tuple(
                ServiceKey(file.tenant, key.name, bytes.fromhex(key.sha256), frozenset(key.may))
                for key in file.service_keys
            ),
        )
        if file.visitors:
            tenant = replace(tenant, visitors=self.visitors(file.visitors, tenant))
        return tenant if len(self.mistakes) == before else None

    def one_subject_each(self) -> None:
        """Two issuers may use one `sub` for two people: where there are several, each entry says what it means."""
        if len({entry.issuer for entry in self.file.identity}) < 2:  # noqa: PLR2004
            return
        for index, entry in enumerate(self.file.identity):
            if entry.subject is None:
                self.wrong(
                    ("identity", index),
                    "with several issuers each needs a `subject`, or two people with one `sub` are one user: "
                    """`subject: '"a:" + claims.sub'`, or `claims.sub` where they share their users""",
                )

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
        return Body(constant, computed, layers)

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
            message = str(first["msg"]).removeprefix("Value error, ")
            self.wrong(route, f"`{route[-1]}`: {message[0].lower()}{message[1:]}")

    def visitors(self, entry: VisitorsEntry, tenant: Tenant) -> VisitorPolicy:
        """Compile what people get who are not logged in: the tenant's session with theirs merged over it."""
        if not self.defaults.visitor_keys:
            self.wrong(("visitors",), "visitors need CHATKIT_MINT_VISITOR_KEYS, which signs their cookies")
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
        who = Visitors(self.file.tenant, frozenset(entry.origins), entry.max_age_days * SECONDS_IN["day"])
        return VisitorPolicy(who, policy, tuple(_window(rate) for rate in entry.quota.address_mints))

    def rules(self, entries: Sequence[RuleEntry], route: Route) -> tuple[Rule, ...]:
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
        return tuple(rules)

    def rollouts(self, entries: Sequence[RolloutEntry], route: Route) -> tuple[Rollout, ...]:
        """Compile the rollouts. Two of one name would put the same users into both."""
        rollouts: list[Rollout] = []
        for index, entry in enumerate(entries):
            if entry.name in [rollout.name for rollout in rollouts]:
                self.wrong((*route, index, "name"), f"there is a rollout {entry.name!r} already")
            split = []
            for number, variant in enumerate(entry.split):
                place = (*route, index, "split", number, "session")
                split.append(Variant(variant.percent, self.body(variant.session, place, f"rollout {entry.name!r}")))
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

    def secret(self, ref: SecretRef, route: Route) -> SecretStr | None:
        """Fetch a secret; None where it isn't there."""
        value = self.defaults.environ.get(ref.env, "") if ref.env else ""
        if ref.file:
            try:
                value = ref.file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                if not self.defaults.secrets_needed:
                    return SecretStr(NOT_HERE)
                self.wrong(route, f"can't read {ref.file}: {getattr(error, 'strerror', None) or error}")
                return None
        if not value and not self.defaults.secrets_needed:
            return SecretStr(NOT_HERE)
        if not value:
            self.wrong(route, f"the environment variable {ref.env} is not set" if ref.env else f"{ref.file} is empty")
            return None
        try:
            value.encode()
        except UnicodeEncodeError:
            self.wrong(route, "the secret is not text in UTF-8")
            return None
        return SecretStr(value)

    def long_secret(self, ref: SecretRef, route: Route) -> SecretStr | None:
        """Fetch a secret that makes or checks signatures."""
        secret = self.secret(ref, route)
        if secret and len(secret.get_secret_value().encode()) < MIN_SECRET:
            self.wrong(route, f"a secret for signatures has at least {MIN_SECRET} bytes")
        return secret

    def account(self) -> Account:
        """Return where the tenant's sessions are issued."""
        entry = self.file.upstream
        if entry.kind == "authority":
            return Account(self.file.tenant, "authority")
        ref = entry.api_key
        key = self.secret(ref, ("upstream", "api_key")) if ref else self.defaults.openai_api_key
        for name, value in (
            ("api_key", key and key.get_secret_value()),
            ("project", entry.project),
            ("organization", entry.organization),
        ):
            if value and not is_header_safe(value):
                self.wrong(("upstream", name), f"`{name}` has characters that no HTTP header can carry")
        if key is None and not ref and self.defaults.secrets_needed:
            self.wrong(("upstream",), "no API key: set OPENAI_API_KEY, or `api_key: {env: NAME}` here")
        base = entry.base_url or self.defaults.openai_base_url
        if not _is_private(base):
            self.wrong(("upstream", "base_url"), "http:// would show the API key to the network; use https://")
        return Account(self.file.tenant, "openai", base, key, entry.project, entry.organization)

    def trust(self, entry: IdentityEntry, route: Route) -> Trust | None:
        """Compile one identity entry."""
        keys = self._keys(entry, route)
        tenant = self.file.tenant
        match = self.expression(entry.match, TRUTH, (*route, "match"))
        subject = self.expression(entry.subject, TEXT, (*route, "subject"))
        login = self.expression(entry.login, TEXT, (*route, "login"))
        if keys is None:
            return None
        return Trust(
            tenant=tenant,
            issuer=entry.issuer,
            audiences=frozenset([entry.audience] if isinstance(entry.audience, str) else entry.audience),
            algorithms=frozenset(entry.algorithms),
            keys=keys,
            matches=_over_claims(match, tenant, lambda _claims: True),
            subject=_over_claims(subject, tenant, lambda claims: claims["sub"]),
            login=_over_claims(login, tenant, lambda claims: claims.get("sid")),
            typ=entry.typ,
            leeway=entry.leeway,
            max_age=entry.max_age,
            session_ends_with_token=entry.session_ends_with_token,
            accept_id_tokens=entry.accept_id_tokens,
        )

    def _inline(self, jwks: dict[str, Any], route: Route) -> KeySource | None:
        try:
            text = orjson.dumps(jwks, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            problem: str | None = "holds a number that JSON can't carry"
        else:
            problem = self.defaults.jwks_problem(jwks)
            if problem is None:
                return InlineJwks(text)
        self.wrong(route, problem or "")
        return None

    def _keys(self, entry: IdentityEntry, route: Route) -> KeySource | None:
        if entry.secret:
            secret = self.long_secret(entry.secret, (*route, "secret"))
            return SharedSecret(secret) if secret else None
        if entry.jwks_file:
            if self.defaults.secrets_needed and not os.access(entry.jwks_file, os.R_OK):
                self.wrong((*route, "jwks_file"), f"{entry.jwks_file} can't be read")
            return JwksFile(Path(entry.jwks_file))
        if entry.jwks is not None:
            return self._inline(entry.jwks, (*route, "jwks"))
        url = entry.jwks_url or entry.discovery or entry.issuer
        if not _is_private(url):
            key = "jwks_url" if entry.jwks_url else "discovery" if entry.discovery else "issuer"
            self.wrong((*route, key), "keys are fetched over https:// (or http:// on loopback)")
        if entry.jwks_url:
            return JwksUrl(entry.jwks_url)
        return Discovery(
            entry.issuer, entry.discovery or f"{entry.issuer.rstrip('/')}/.well-known/openid-configuration"
        )


def _over_claims(expression: Expression | None, tenant: str, otherwise: Callable[[Claims], T]) -> Callable[[Claims], T]:
    if expression is None:
        return otherwise
    return lambda claims: expression.evaluate(Scope(claims, tenant, {}, 0.0).activation())


def _is_private(url: str) -> bool:
    """Return whether what is sent to *url* stays between us and its owner."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _window(rate: str) -> Window:
    count, _, unit = rate.partition("/")
    return Window(int(count), SECONDS_IN[unit])


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
    near = get_close_matches(dotted(path), [dotted(each) for each in LEAVES], 1)
    return f"; did you mean `{near[0]}`?" if near else ""
