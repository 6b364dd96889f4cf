"""The tenant file's shape. What stands in `session` is ChatKit's create body and is checked apart."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from service.policy.shape import FileName, Origins, Rate, SecretRef, Shape, TenantName, Text

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "HS256",
    "HS384",
    "HS512",
]


OneOrSeveral = Text | Annotated[list[Text], Field(min_length=1)]


class LogoutEntry(Shape):
    """How this issuer's logout tokens differ (OIDC Back-Channel Logout 1.0). `audience`: default the entry's own."""

    audience: OneOrSeveral | None = None
    allow_missing_exp: bool = False
    allow_missing_typ: bool = False


class IdentityEntry(Shape):
    """Tokens that the tenant believes. Keys come from one of the five; discovery is the default.

    `azp`: whom the token was issued to. Beside `audience` it narrows; alone it is for tokens that carry no `aud`.
    """

    issuer: Text
    audience: OneOrSeveral | None = None
    azp: OneOrSeveral | None = None
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    discovery: Text | None = None
    jwks_url: Text | None = None
    jwks_file: FileName | None = None
    jwks: dict[str, Any] | None = None
    secret: SecretRef | None = None
    match: Text | None = None
    subject: Text | None = None
    login: Text | None = None
    typ: Text | None = None
    leeway: Annotated[int, Field(ge=0, le=300)] = 30
    max_age: Annotated[int, Field(ge=60, le=31 * 86_400)] = 86_400
    session_ends_with_token: bool = False
    accept_id_tokens: bool = False
    logout: LogoutEntry = LogoutEntry()

    @model_validator(mode="after")
    def _for_us(self) -> "IdentityEntry":
        if self.audience is None and self.azp is None:
            raise ValueError("`audience` is missing; or `azp`, for an issuer whose tokens carry no `aud`")
        return self

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> "IdentityEntry":
        sources = [
            name for name in ("discovery", "jwks_url", "jwks_file", "jwks", "secret") if getattr(self, name) is not None
        ]
        if len(sources) > 1:
            raise ValueError(f"keys come from one place; keep one of {', '.join(sources)}")
        symmetric = [name for name in self.algorithms if name.startswith("HS")]
        if bool(symmetric) != (self.secret is not None) or (symmetric and len(symmetric) < len(self.algorithms)):
            raise ValueError("HS algorithms go with `secret`, all others with published keys; the two never mix")
        return self


def _one_or_several(entry: Any) -> str:
    return "several" if isinstance(entry, list) else "one"


KeyRefs = Annotated[
    Annotated[SecretRef, Tag("one")] | Annotated[list[SecretRef], Field(min_length=1, max_length=3), Tag("several")],
    Discriminator(_one_or_several),
]


class UpstreamEntry(Shape):
    """Who issues the sessions: OpenAI, or our own authority. Several keys are for the time of a rotation."""

    kind: Literal["openai", "authority"] = "openai"
    api_key: KeyRefs | None = None
    base_url: Text | None = None
    project: Text | None = None
    organization: Text | None = None
    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = 256
    retry_creates: bool = False

    @property
    def key_refs(self) -> list[SecretRef]:
        """Where its keys are, the one to try first first."""
        if self.api_key is None:
            return []
        return self.api_key if isinstance(self.api_key, list) else [self.api_key]

    @field_validator("base_url")
    @classmethod
    def _a_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("https://", "http://")):
            raise ValueError("starts with https:// (or http:// on loopback)")
        return url.rstrip("/") if url else url


class Pseudonymous(Shape):
    """Upstream gets an HMAC in place of the mapped user."""

    key: SecretRef


class RuleEntry(Shape):
    """Merged over the session where `when` holds; or a denial with its public text."""

    name: Text
    when: Text
    session: dict[str, Any] | None = None
    deny: Text | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> "RuleEntry":
        if (self.session is None) == (self.deny is None):
            raise ValueError("a rule has one of `session` or `deny`")
        return self


class VariantEntry(Shape):
    """What a share of the users gets instead: another session, or sessions from another upstream, or both."""

    percent: Annotated[float, Field(gt=0, le=100)]
    session: dict[str, Any] | None = None
    upstream: UpstreamEntry | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "VariantEntry":
        if self.session is None and self.upstream is None:
            raise ValueError("a share gets another `session`, another `upstream`, or both")
        return self


class RolloutEntry(Shape):
    """A weighted split, sticky per user. Users whom no variant covers keep what they have.

    One variant or two: with more, none of those between could grow without moving somebody.
    """

    name: Text
    split: Annotated[list[VariantEntry], Field(min_length=1, max_length=2)]

    @field_validator("split")
    @classmethod
    def _at_most_everybody(cls, split: list[VariantEntry]) -> list[VariantEntry]:
        total = sum(variant.percent for variant in split)
        if total > 100 + 1e-9:
            raise ValueError(f"the shares add up to {total:g} %, and there are only 100")
        return split


class RangeBound(Shape):
    """A number that the caller may choose."""

    min: float | None = None
    max: float | None = None


class TextBound(Shape):
    """Free text that the caller may give, in characters."""

    max_length: Annotated[int, Field(ge=1, le=4096)]


def _kind_of_bound(entry: Any) -> str:
    if isinstance(entry, list):
        return "choices"
    if isinstance(entry, dict):
        return "text" if "max_length" in entry else "range"
    return "any boolean"


def _true(entry: bool) -> bool:  # noqa: FBT001
    if not entry:
        raise ValueError("`true` lets the caller set it; to forbid it, leave it out")
    return entry


BoundEntry = Annotated[
    Annotated[list[str | bool | int | float], Field(min_length=1), Tag("choices")]
    | Annotated[RangeBound, Tag("range")]
    | Annotated[TextBound, Tag("text")]
    | Annotated[bool, AfterValidator(_true), Tag("any boolean")],
    Discriminator(_kind_of_bound),
]


class LiveSessions(Shape):
    """How many sessions a user may hold at once, and what gives way."""

    max: Annotated[int, Field(ge=1, le=1000)]
    excess: Literal["refuse", "cancel_oldest"] = "refuse"


class QuotaEntry(Shape):
    """How many mints per window, of a user and of the whole tenant, and how many live sessions of a user."""

    mints: list[Rate] = []
    tenant_mints: list[Rate] = []
    live_sessions: LiveSessions | None = None


class CookieEntry(Shape):
    """Access tokens come in a cookie of this name, from pages of these origins."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
    origins: Origins


class CorsEntry(Shape):
    """Pages of these origins may call with a token; those that `cookie` and `visitors` name may anyway."""

    origins: Origins


class VisitorQuota(QuotaEntry):
    """As for users; besides, per client address: a visitor who drops the cookie is a new visitor."""

    address_mints: Annotated[list[Rate], Field(min_length=1)] = ["60/hour"]


class VisitorsEntry(Shape):
    """People who are not logged in. What stands here is merged over, or replaces, what users get."""

    origins: Origins
    max_age_days: Annotated[int, Field(ge=1, le=365)] = 30
    session: dict[str, Any] = {}
    rules: list[RuleEntry] = []
    client_may: dict[str, BoundEntry] = {}
    quota: VisitorQuota = VisitorQuota()


class ServiceKeyEntry(Shape):
    """A server that may act for the tenant; `chatkit-mint service-key` makes one."""

    name: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    may: Annotated[list[Literal["logout", "read", "verify"]], Field(min_length=1)]


class TenantFile(Shape):
    """A tenant's file with its templates merged in."""

    tenant: TenantName
    enabled: bool = True
    identity: list[IdentityEntry] = []
    upstream: UpstreamEntry = UpstreamEntry()
    former_upstreams: Annotated[list[UpstreamEntry], Field(max_length=3)] = []
    """Where sessions that may still live were issued before the tenant moved: they are cancelled there."""
    user: Text | None = None
    pseudonymous: Pseudonymous | None = None
    session: dict[str, Any]
    rules: list[RuleEntry] = []
    rollout: list[RolloutEntry] = []
    client_may: dict[str, BoundEntry] = {}
    quota: QuotaEntry = QuotaEntry()
    cors: CorsEntry | None = None
    cookie: CookieEntry | None = None
    visitors: VisitorsEntry | None = None
    service_keys: list[ServiceKeyEntry] = []
    expose_state_variables: bool = False
    on_drift: Literal["report", "cancel"] = "report"

    @model_validator(mode="after")
    def _somebody_may_come(self) -> "TenantFile":
        if not self.identity and self.visitors is None:
            raise ValueError("`identity` is missing; or `visitors`, for a tenant without logins")
        return self
