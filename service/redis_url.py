"""`CHATKIT_MINT_REDIS_URL` → where Redis is and how to connect to it. No message quotes the URL: it holds passwords.

    redis://[user:password@]host[:6379][/db]                       one server, or a name that leads to the primary
    unix:///path/to/redis.sock
    redis+sentinel://[user:password@]host[:26379][,host…]/service[/db]
    redis+cluster://[user:password@]host[:6379][,host…]

`rediss` in place of `redis` is TLS, to every server and Sentinel.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from redis.asyncio.connection import parse_url

Address = tuple[str, int]
"""Host and port."""

FORMS: Final = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
)
PORTS: Final = {"cluster": 6379, "sentinel": 26_379}
OPTIONS: Final = frozenset({"db", "username", "password", "client_name", "socket_keepalive"})
TLS_OPTIONS: Final = frozenset(
    {
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_min_version",
        "ssl_ciphers",
    }
)
SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
ENCODE: Final = "a password with #, /, ?, @ or , in it must be percent-encoded"


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where Redis is. *hosts* are the cluster's nodes to ask first, or the Sentinels; one server's is in *options*."""

    form: Literal["single", "cluster", "sentinel"]
    options: Mapping[str, Any] = field(repr=False)
    """For every connection to a server, as redis-py names them."""
    hosts: tuple[Address, ...] = ()
    service: str = ""
    """What the Sentinels call the primary."""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse_redis_url(url: str) -> RedisPlace:
    """Return the place that *url* names; raise `ValueError` that says what is right."""
    if not re.match(r"(rediss?(\+sentinel|\+cluster)?|unix)://", url):
        raise ValueError(f"starts with {FORMS}")
    base, _, form = url.partition("://")[0].partition("+")
    try:
        parts = urlsplit(url)
    except ValueError:  # its message quotes the URL, password and all
        raise ValueError(f"is no Redis URL; {ENCODE}") from None
    if "#" in url:
        raise ValueError(f"is no Redis URL; {ENCODE}")
    options = _options(parts, base, form)
    if form == "cluster":
        return _cluster(parts, options)
    if form == "sentinel":
        return _sentinel(parts, options)
    if base == "unix" and not parts.path:
        raise ValueError("names a socket: unix:///path/to/redis.sock")
    if base != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError(f"ends with the number of a database, or nothing; {ENCODE}")
    return RedisPlace("single", options)


def _cluster(parts: SplitResult, options: dict[str, Any]) -> RedisPlace:
    if parts.path not in {"", "/", "/0"} or options.pop("db", 0):
        raise ValueError("names no database: a Redis Cluster has database 0 alone")
    return RedisPlace("cluster", options, _hosts(parts.netloc, PORTS["cluster"]))


def _sentinel(parts: SplitResult, options: dict[str, Any]) -> RedisPlace:
    named = re.fullmatch(r"/([A-Za-z0-9._-]+)(?:/(\d+))?", parts.path)
    if named is None:
        raise ValueError("ends with what the Sentinels call the service: redis+sentinel://host,host/service[/db]")
    if named[2]:
        options["db"] = int(named[2])
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL_OPTIONS & options.keys()}
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return RedisPlace("sentinel", options, _hosts(parts.netloc, PORTS["sentinel"]), named[1], tls | own)


def _options(parts: SplitResult, base: str, form: str) -> dict[str, Any]:
    """Return what redis-py itself reads in a URL: credentials, database, query; of a single server, the host too."""
    allowed = (
        OPTIONS | (TLS_OPTIONS if base == "rediss" else set()) | (SENTINEL_OPTIONS if form == "sentinel" else set())
    )
    if parse_qs(parts.query, keep_blank_values=True).keys() - allowed:
        # Timeouts and numbers of connections are settings of their own; an unknown word would fail at the first use.
        told = ", ".join(sorted(allowed))
        raise ValueError(f"has an option after ? that is none of {told}; {ENCODE}")
    credentials, at, _ = parts.netloc.rpartition("@")
    netloc, path = (credentials + at + "host", "") if form else (parts.netloc, parts.path)
    try:
        options = dict(parse_url(parts._replace(scheme=base, netloc=netloc, path=path).geturl()))
    except ValueError:  # as above
        raise ValueError(f"is no Redis URL; {ENCODE}") from None
    if form:
        del options["host"]
    return options


def _hosts(netloc: str, default_port: int) -> tuple[Address, ...]:
    found = []
    for each in netloc.rpartition("@")[2].split(","):
        try:
            host = urlsplit(f"//{each}")
            address = (host.hostname or "", host.port or default_port)
        except ValueError:
            address = ("", 0)
        if not re.fullmatch(r"[A-Za-z0-9._:%-]+", address[0]):
            raise ValueError(f"lists hosts as host:port,host:port; {ENCODE}")
        found.append(address)
    return tuple(found)
