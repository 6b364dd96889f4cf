"""Environment → Settings. Every mistake is reported at once; nothing else reads the environment."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from service.redis_url import parse_redis_url

PREFIX = "CHATKIT_MINT_"
UNPREFIXED = {"openai_api_key": "OPENAI_API_KEY", "openai_base_url": "OPENAI_BASE_URL"}
"""These keep the meaning that OpenAI's own tools give them."""

_SERVICE_LINK = re.compile(r"CHATKIT_MINT_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)")

NEVER_EMPTY = frozenset({"CHATKIT_MINT_REDIS_URL", "CHATKIT_MINT_ADMIN_KEY", "CHATKIT_MINT_VISITOR_KEYS"})
"""Elsewhere an empty variable says nothing, as usual."""

KINDS = {
    "bool_parsing": "is true or false",
    "int_parsing": "is a whole number",
    "float_parsing": "is a number",
}
"""What a value of the wrong kind should be, by what Pydantic calls the mistake."""
MAX_WORKERS = 256
"""More than one for each core only adds connections and looks at the queue."""

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=600)]


class SettingsError(ValueError):
    """The environment is wrong; one line a mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Settings(BaseModel):
    """How this process runs. Each is read from `CHATKIT_MINT_<NAME>`, or from the file `…_FILE` names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    config_dir: Path = Path("config")
    """Holds `tenants/` and `templates/`."""
    redis_url: SecretStr | None = None
    """`redis://`, `unix://`, `redis+sentinel://` or `redis+cluster://`; without it a private one is started."""
    redis_dir: Path = Path("var/redis")
    """Where the private redis-server keeps its append-only file."""
    redis_timeout: Annotated[float, Field(gt=0, le=5)] = 1.0
    """Longest wait for one answer of Redis, in seconds; well below how far ahead a user is listed, which is 10."""
    redis_connections: Annotated[int, Field(ge=4, le=10_000)] = 50
    """At most; two of them are kept for the scripts of mints."""
    host: str = "127.0.0.1"
    port: Port = 8080
    ops_host: str = "127.0.0.1"
    ops_port: Port = 9464
    admin_key: SecretStr | None = None
    """Opens the admin routes of the operations listener; without it there are none."""
    visitor_keys: SecretStr | None = None
    """Signs visitors' cookies: keys of at least 32 characters, separated by commas; the first signs, all verify."""
    trusted_proxies: str = ""
    """Addresses and networks, separated by commas, whose `X-Forwarded-For` is believed."""
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    """Processes that serve, on the same sockets; with one there is no parent."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    audit_file: Path | None = None
    """Where the audit stream goes, a JSON line an event; without it to standard output, marked `"stream": "audit"`."""
    metrics_tenants: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Tenants with a name of their own in the metrics; the others share one."""
    traces: bool = False
    """Whether OpenTelemetry spans are made; the standard `OTEL_…` variables say where they go."""
    upstream_timeout: Seconds = 10.0
    """Longest that one call upstream may take as a whole, in seconds."""
    upstream_connect_timeout: Seconds = 3.0
    """Longest wait for a connection to be made, name look-up and TLS included, in seconds."""
    upstream_read_timeout: Seconds = 10.0
    """Longest silence of upstream within an answer, in seconds."""
    upstream_pool_timeout: Seconds = 1.0
    """Longest wait for a connection that others hold, in seconds."""
    upstream_deadline: Seconds = 15.0
    """Longest that all calls upstream of one request may take, with the waits between them, in seconds."""
    logout_wait: Seconds = 5.0
    """How long a logout waits for upstream to confirm its cancels, in seconds; the rest is retried."""
    revoke_rate: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    """Cancels a second while a whole tenant is revoked, where the command doesn't say."""
    shutdown_grace: Seconds = 15.0
    """How long requests in flight may take to finish after SIGTERM, in seconds."""
    shutdown_delay: Annotated[float, Field(ge=0, le=600)] = 0.0
    """How long connections are still taken after SIGTERM, while `/readyz` says draining, in seconds."""
    openai_api_key: SecretStr | None = None
    openai_base_url: str = "https://api.openai.com/v1"

    @property
    def visitor_key_list(self) -> list[str]:
        """The keys that sign visitors' cookies, the signing one first."""
        return [key.strip() for key in self.visitor_keys.get_secret_value().split(",")] if self.visitor_keys else []

    @property
    def trusted_proxy_list(self) -> list[str]:
        """Addresses and networks whose `X-Forwarded-For` is believed."""
        return [each.strip() for each in self.trusted_proxies.split(",") if each.strip()]

    @field_validator("redis_url")
    @classmethod
    def _a_redis_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            parse_redis_url(url.get_secret_value())
        return url

    @field_validator("openai_api_key")
    @classmethod
    def _an_api_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not is_header_safe(key.get_secret_value()):
            raise ValueError("has characters that no API key has; is there a line break in it?")
        return key

    @field_validator("openai_base_url")
    @classmethod
    def _a_base_url(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("starts with https:// (or http:// on loopback)")
        return url.rstrip("/")

    @field_validator("admin_key")
    @classmethod
    def _a_long_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key and (len(key.get_secret_value()) < 32 or not is_header_safe(key.get_secret_value())):  # noqa: PLR2004
            raise ValueError("has at least 32 characters, without spaces")
        return key

    @field_validator("visitor_keys")
    @classmethod
    def _long_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys and any(len(key.strip()) < 32 for key in keys.get_secret_value().split(",")):  # noqa: PLR2004
            raise ValueError("has at least 32 characters a key, keys separated by commas")
        return keys

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: str) -> str:
        for each in filter(str.strip, networks.split(",")):
            try:
                ip_network(each.strip())
            except ValueError:
                raise ValueError(f"holds addresses and networks; {each.strip()!r} is neither") from None
        return networks


def is_header_safe(text: str) -> bool:
    """Return whether *text* can stand in an HTTP header as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return UNPREFIXED.get(name, PREFIX + name.upper())


def load_settings(environ: Mapping[str, str], **defaults: str) -> Settings:
    """Read every setting; raise `SettingsError` that lists all mistakes, by the variable's name.

    *defaults* hold where the environment says nothing.
    """
    mistakes: list[str] = []
    given: dict[str, str] = {}
    known = {variable(name): name for name in Settings.model_fields}
    for key, value in environ.items():
        if _SERVICE_LINK.fullmatch(key) or (key == "CHATKIT_MINT_PORT" and value.startswith("tcp://")):
            continue  # Kubernetes tells of a Service called chatkit-mint in variables that look like ours
        name = known.get(key) or known.get(key.removesuffix("_FILE"))
        if name is None:
            if key.startswith(PREFIX):
                mistakes.append(f"{key}: there is no such setting{_meant(key, known)}")
        elif value == "" and key in NEVER_EMPTY:
            # A secret that came out empty must not read as one left out: a private Redis in place of the shared one.
            mistakes.append(f"{key}: is set but empty; give it a value, or leave it out")
        elif key in known:  # also the setting whose own name ends in _FILE
            given[name] = value
        elif key.removesuffix("_FILE") in environ:
            mistakes.append(f"{key}: {key.removesuffix('_FILE')} is set too; keep one of them")
        else:
            given[name] = _from_file(key, value, mistakes)
    given = {**defaults, **{name: value for name, value in given.items() if value != ""}}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_input=False)
        mistakes += [f"{variable(str(each['loc'][0]))}: {_plain(each['type'], each['msg'])}" for each in found]
        raise SettingsError(sorted(mistakes)) from None
    mistakes += _at_odds(settings, given)
    if mistakes:
        raise SettingsError(sorted(mistakes))
    return settings


def _at_odds(settings: Settings, given: Mapping[str, str]) -> list[str]:
    """Return what doesn't go together. It stands under the variable that was set; both are named."""
    if settings.upstream_deadline >= settings.upstream_timeout:
        return []
    deadline, timeout = variable("upstream_deadline"), variable("upstream_timeout")
    under = deadline if "upstream_deadline" in given else timeout
    one, all_of_them = f"{settings.upstream_timeout:g} s for one call", f"{settings.upstream_deadline:g} s for all"
    return [f"{under}: {timeout} ({one}) is longer than {deadline} ({all_of_them} of a request)"]


def _from_file(key: str, path: str, mistakes: list[str]) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        mistakes.append(f"{key}: can't read {path}: {getattr(error, 'strerror', None) or error}")
        return ""
    if not text:
        mistakes.append(f"{key}: {path} is empty")
    return text


def _meant(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key.removesuffix("_FILE"), known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _plain(kind: str, message: str) -> str:
    if kind in KINDS:
        return KINDS[kind]
    return message.removeprefix("Value error, ").replace("Input should be ", "is ")
