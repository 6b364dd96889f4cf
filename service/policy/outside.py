"""What a tenant file says of the world outside: whom it believes, who issues its sessions, where its secrets are."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

from service.policy.expressions import TEXT, TRUTH, Expression, Scope
from service.policy.model import IdentityEntry, TenantFile, UpstreamEntry
from service.policy.shape import SecretRef
from service.policy.source import Route
from service.principal import Claims, Discovery, InlineJwks, JwksFile, JwksUrl, KeySource, SharedSecret, Trust
from service.session import Account
from service.settings import is_header_safe

MIN_SECRET = 32
"""Bytes of an HS secret and of a pseudonym key (RFC 7518 §3.2)."""
NOT_HERE = "not-set-here-" + "0" * MIN_SECRET
"""In the place of a secret, where none is needed."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

T = TypeVar("T")
FileState = tuple[int, int, int, int]
"""What changes when a file does: its times, size and inode, through links; or what stands in the way of knowing."""
Wrong = Callable[[Route, str], None]
Compile = Callable[[str | None, frozenset[str], Route], Expression | None]


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
    pages: frozenset[str] = frozenset()
    """Origins that every tenant lets in beside those that it lists: that of `dev`'s demo page."""
    openai_api_key_file: Path | None = None
    """Where `openai_api_key` came from a file: it is read again with the tenants."""
    secret_files: dict[Path, FileState] = field(default_factory=dict)
    """Filled while loading: every file that a secret was looked for in, as it was just before."""


class Outside:
    """One tenant file's dealings with others. What is wrong goes to *wrong*; *expression* compiles."""

    def __init__(self, file: TenantFile, wrong: Wrong, expression: Compile, defaults: Defaults) -> None:
        self._file = file
        self._wrong = wrong
        self._expression = expression
        self._defaults = defaults

    def trusts(self) -> tuple[Trust, ...]:
        """Return whose tokens the tenant believes."""
        self._one_subject_each()
        entries = enumerate(self._file.identity)
        return tuple(trust for index, entry in entries if (trust := self._trust(entry, ("identity", index))))

    def former_accounts(self) -> tuple[Account, ...]:
        """Return where the tenant's sessions were issued before, so that those which still live can be cancelled."""
        entries = enumerate(self._file.former_upstreams)
        return tuple(self.account(entry, ("former_upstreams", index)) for index, entry in entries)

    def account(self, entry: UpstreamEntry, route: Route) -> Account:
        """Return where sessions are issued by what stands at *route*."""
        tenant, most = self._file.tenant, entry.max_concurrent
        if entry.kind == "authority":
            return Account(tenant, "authority", max_concurrent=most)
        for name, value in (("project", entry.project), ("organization", entry.organization)):
            self._header_safe(name, value, (*route, name))
        base = entry.base_url or self._defaults.openai_base_url
        if not _is_private(base):
            self._wrong((*route, "base_url"), "http:// would show the API key to the network; use https://")
        return Account(
            tenant,
            "openai",
            base,
            self._api_keys(entry, route),
            entry.project,
            entry.organization,
            max_concurrent=most,
            retry_creates=entry.retry_creates,
        )

    def _api_keys(self, entry: UpstreamEntry, upstream: Route) -> tuple[SecretStr, ...]:
        """Return the keys of the tenant's own, or else the usual one."""
        route: Route = (*upstream, "api_key")
        found: list[tuple[SecretStr | None, Route]]
        if not entry.key_refs:
            usual, usual_file = self._defaults.openai_api_key, self._defaults.openai_api_key_file
            key = self._secret(SecretRef(file=usual_file), upstream) if usual_file else usual
            if not usual and not usual_file and self._defaults.secrets_needed:
                self._wrong(upstream, "no API key: set OPENAI_API_KEY, or `api_key: {env: NAME}` here")
            found = [(key, upstream)]
        elif isinstance(entry.api_key, list):
            found = [(self._secret(ref, (*route, index)), (*route, index)) for index, ref in enumerate(entry.api_key)]
        else:
            found = [(self._secret(entry.key_refs[0], route), route)]
        for key, place in found:
            self._header_safe("api_key", key.get_secret_value() if key else None, place)
        return tuple(dict.fromkeys(key for key, _ in found if key))

    def _header_safe(self, name: str, value: str | None, route: Route) -> None:
        if value and not is_header_safe(value):
            self._wrong(route, f"`{name}` has characters that no HTTP header can carry")

    def pseudonym_key(self) -> SecretStr | None:
        """Return the key of the tenant's pseudonyms; None where it wants none."""
        entry = self._file.pseudonymous
        return self._long_secret(entry.key, ("pseudonymous", "key")) if entry else None

    def _one_subject_each(self) -> None:
        """Two issuers may use one `sub` for two people: where there are several, each entry says what it means."""
        if len({entry.issuer for entry in self._file.identity}) < 2:  # noqa: PLR2004
            return
        for index, entry in enumerate(self._file.identity):
            if entry.subject is None:
                self._wrong(
                    ("identity", index),
                    "with several issuers each needs a `subject`, or two people with one `sub` are one user: "
                    """`subject: '"a:" + claims.sub'`, or `claims.sub` where they share their users""",
                )

    def _secret(self, ref: SecretRef, route: Route) -> SecretStr | None:
        """Fetch a secret; None where it isn't there."""
        value = self._defaults.environ.get(ref.env, "") if ref.env else ""
        if ref.file:
            # As it was *before* it is read: a change while it is read is then a change since.
            self._defaults.secret_files.setdefault(ref.file, file_state(ref.file))
            try:
                value = ref.file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                if not self._defaults.secrets_needed:
                    return SecretStr(NOT_HERE)
                self._wrong(route, f"can't read {ref.file}: {getattr(error, 'strerror', None) or error}")
                return None
        if not value and not self._defaults.secrets_needed:
            return SecretStr(NOT_HERE)
        if not value:
            self._wrong(route, f"the environment variable {ref.env} is not set" if ref.env else f"{ref.file} is empty")
            return None
        try:
            value.encode()
        except UnicodeEncodeError:
            self._wrong(route, "the secret is not text in UTF-8")
            return None
        return SecretStr(value)

    def _long_secret(self, ref: SecretRef, route: Route) -> SecretStr | None:
        """Fetch a secret that makes or checks signatures."""
        secret = self._secret(ref, route)
        if secret and len(secret.get_secret_value().encode()) < MIN_SECRET:
            self._wrong(route, f"a secret for signatures has at least {MIN_SECRET} bytes")
        return secret

    def _trust(self, entry: IdentityEntry, route: Route) -> Trust | None:
        """Compile one identity entry."""
        keys = self._keys(entry, route)
        tenant = self._file.tenant
        match = self._expression(entry.match, TRUTH, (*route, "match"))
        subject = self._expression(entry.subject, TEXT, (*route, "subject"))
        login = self._expression(entry.login, TEXT, (*route, "login"))
        if keys is None:
            return None
        return Trust(
            tenant=tenant,
            issuer=entry.issuer,
            audiences=_all_of(entry.audience),
            algorithms=frozenset(entry.algorithms),
            keys=keys,
            matches=_over_claims(match, tenant, lambda _claims: True),
            subject=_over_claims(subject, tenant, lambda claims: claims["sub"]),
            login=_over_claims(login, tenant, lambda claims: claims.get("sid")),
            authorized_parties=_all_of(entry.azp),
            typ=entry.typ,
            leeway=entry.leeway,
            max_age=entry.max_age,
            session_ends_with_token=entry.session_ends_with_token,
            accept_id_tokens=entry.accept_id_tokens,
            logout_audiences=_all_of(entry.logout.audience or entry.audience),
            logout_allows_missing_exp=entry.logout.allow_missing_exp,
            logout_allows_missing_typ=entry.logout.allow_missing_typ,
        )

    def _inline(self, jwks: dict[str, Any], route: Route) -> KeySource | None:
        try:
            text = orjson.dumps(jwks, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            problem: str | None = "holds a number that JSON can't carry"
        else:
            problem = self._defaults.jwks_problem(jwks)
            if problem is None:
                return InlineJwks(text)
        self._wrong(route, problem or "")
        return None

    def _keys(self, entry: IdentityEntry, route: Route) -> KeySource | None:
        if entry.secret:
            secret = self._long_secret(entry.secret, (*route, "secret"))
            return SharedSecret(secret) if secret else None
        if entry.jwks_file:
            if self._defaults.secrets_needed and not os.access(entry.jwks_file, os.R_OK):
                self._wrong((*route, "jwks_file"), f"{entry.jwks_file} can't be read")
            return JwksFile(Path(entry.jwks_file))
        if entry.jwks is not None:
            return self._inline(entry.jwks, (*route, "jwks"))
        url = entry.jwks_url or entry.discovery or entry.issuer
        if not _is_private(url):
            key = "jwks_url" if entry.jwks_url else "discovery" if entry.discovery else "issuer"
            self._wrong((*route, key), "keys are fetched over https:// (or http:// on loopback)")
        if entry.jwks_url:
            return JwksUrl(entry.jwks_url)
        return Discovery(
            entry.issuer, entry.discovery or f"{entry.issuer.rstrip('/')}/.well-known/openid-configuration"
        )


def _all_of(one_or_several: str | list[str] | None) -> frozenset[str]:
    if one_or_several is None:
        return frozenset()
    return frozenset([one_or_several] if isinstance(one_or_several, str) else one_or_several)


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


def file_state(path: Path) -> FileState:
    """Return what changes when the file does. Following links sees a Kubernetes Secret swap its hidden folder."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return -1, -1, -1, getattr(error, "errno", None) or 0
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
