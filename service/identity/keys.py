"""The issuers' signing keys, kept fresh in the background.

Keys are kept by where they come from, so one issuer's outage never delays another's tokens. Old keys serve
while their issuer is down, up to a hard maximum; keys that a good answer no longer lists are dropped.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import orjson
import structlog

from service.background import for_ever
from service.errors import IssuerUnavailable
from service.identity.differences import quoted
from service.identity.fetch import FetchError, fetch_json
from service.identity.jwk import JwkSetError, VerifyingKey, read_jwk_set, shared_secret
from service.observe.metrics import Metrics
from service.principal import Discovery, InlineJwks, JwksFile, JwksUrl, KeySource, SharedSecret

COOLDOWN: Final = 30.0
"""Seconds between refreshes forced by an unknown `kid`; bounds the fetches that forged tokens can cause."""
RETRY: Final = 5.0
"""Seconds between tries while an issuer fails."""
FRESH: Final = 600.0
"""Seconds that keys count as fresh where the issuer's answer has no max-age."""
MIN_FRESH, MAX_FRESH = 60.0, 3600.0
"""Seconds; an issuer's max-age is held between these."""
AHEAD: Final = 0.8
"""Share of the fresh time after which keys are fetched anew."""
ROUND: Final = 2.0
"""Seconds between looks at what must be fetched anew."""
HARD_MAX: Final = 86_400.0
"""Seconds that the last good keys serve while their issuer is down."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Held:
    keys: tuple[VerifyingKey, ...] = ()
    good_at: float = float("-inf")
    """When the keys were last confirmed."""
    tried_at: float = float("-inf")
    """When the last fetch began, whatever became of it."""
    fresh_for: float = FRESH
    fetching: asyncio.Task[None] | None = None
    problem: str | None = None
    """Why the last fetch brought nothing; None where it did."""
    stamp: tuple[int, int, int] | None = None
    """A key file's inode, time and size when it was read."""


STATIC: Final = (InlineJwks, SharedSecret)
"""Sources that never change while they are in force."""


class KeyCache:
    """Verifying keys by source. *clock* is monotonic, in seconds."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._metrics = metrics
        self._clock = clock
        self._held: dict[KeySource, _Held] = {}
        self._wanted: set[KeySource] = set()
        """The sources that the policies in force name."""

    async def candidates(self, source: KeySource, kid: str | None, alg: str) -> list[VerifyingKey]:
        """Return the source's keys that may have signed: by `kid`, or without one every key that fits *alg*.

        Raises `IssuerUnavailable` where no keys are at hand and none can be had now.
        """
        held = self._held.get(source) or self._held.setdefault(source, _Held())
        if not self._usable(source, held):
            await self._available(source, held)
        return _fitting(held.keys, kid, alg)

    def at_hand(self, source: KeySource) -> tuple[VerifyingKey, ...]:
        """Return what the source's last good answer listed."""
        held = self._held.get(source)
        return held.keys if held else ()

    async def renewed(self, source: KeySource, kid: str | None, alg: str) -> list[VerifyingKey]:
        """Return what `candidates` returns after a fetch, for a token that no key at hand signed.

        Returns nothing where the set has the very key that the token names, or where it is too early to fetch.
        """
        held = self._held.setdefault(source, _Held())
        named = kid is not None and any(key.kid == kid for key in _fitting(held.keys, kid, alg))
        if named or not self._may_force(source, held):
            return []
        await self._fetch(source, held)
        return _fitting(held.keys, kid, alg)

    async def warm(self, sources: Collection[KeySource]) -> None:
        """Fetch keys not held yet, side by side, and drop those of sources that no policy names any more."""
        # Dropped one load later: requests that began under the policies before may still need them.
        kept, self._wanted = self._wanted, set(sources)
        for gone in set(self._held) - self._wanted - kept:
            if (task := self._held.pop(gone).fetching) is not None:
                task.cancel()
        missing = [(source, self._held.setdefault(source, _Held())) for source in sources]
        await asyncio.gather(*(self._fetch(source, held) for source, held in missing if not held.keys))

    def missing(self) -> list[KeySource]:
        """Return the sources that have no usable keys now."""
        now = self._clock()
        return [
            source
            for source, held in self._held.items()
            if (not self._wanted or source in self._wanted)
            and (not held.keys or (now - held.good_at > HARD_MAX and not isinstance(source, STATIC)))
        ]

    def oldest(self) -> float:
        """Return how long ago the keys of some wanted source were confirmed last, the longest time (s)."""
        now = self._clock()
        ages = [
            now - held.good_at
            for source, held in self._held.items()
            if held.keys and not isinstance(source, STATIC) and (not self._wanted or source in self._wanted)
        ]
        return max(ages, default=0.0)

    async def fetch(self, source: KeySource) -> None:
        """Fetch the source's keys, unless they are at hand; `state` tells what became of it."""
        held = self._held.setdefault(source, _Held())
        if not held.keys:
            await self._fetch(source, held)

    def state(self, source: KeySource) -> tuple[int, str | None]:
        """Return how many keys of the source are at hand, and why its last fetch brought none (None: it did)."""
        held = self._held.get(source, _Held())
        return len(held.keys), held.problem

    async def run(self) -> None:
        """Refresh for ever, also where nobody asks: a key that its issuer withdrew must not outlive a quiet night."""
        await for_ever(self.refresh_due, every=ROUND, failed="key_refresh_failed")

    async def refresh_due(self) -> None:
        """Start a fetch for every source whose keys will soon be stale, or are missing."""
        now = self._clock()
        for source, held in self._held.items():
            if self._wanted and source not in self._wanted:
                continue
            stale = now - held.good_at > held.fresh_for * AHEAD
            if stale and now - held.tried_at > RETRY and not isinstance(source, STATIC):
                self._start(source, held)

    async def aclose(self) -> None:
        """Stop what is being fetched."""
        tasks = [held.fetching for held in self._held.values() if held.fetching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _usable(self, source: KeySource, held: _Held) -> bool:
        """Return whether there are keys, if only old ones while their issuer is down."""
        return bool(held.keys) and (isinstance(source, STATIC) or self._clock() - held.good_at < HARD_MAX)

    async def _available(self, source: KeySource, held: _Held) -> None:
        """Fetch, and raise where there are no keys then."""
        if self._clock() - held.tried_at > RETRY or held.fetching is not None:
            await self._fetch(source, held)
        if not held.keys or self._clock() - held.good_at > HARD_MAX:
            held.keys = ()
            raise IssuerUnavailable(
                f"no keys from {describe(source)}",
                retry_after=max(1.0, held.tried_at + RETRY - self._clock()),
            )

    def _may_force(self, source: KeySource, held: _Held) -> bool:
        static = isinstance(source, STATIC)
        # One that waits for a fetch under way costs nothing; one that starts a fetch waits for its turn.
        return not static and (held.fetching is not None or self._clock() - held.tried_at > COOLDOWN)

    async def _fetch(self, source: KeySource, held: _Held) -> None:
        # Waited for, not awaited: the fetch is everybody's. It goes on when the caller who started it leaves, and
        # when it is cancelled because its source was dropped, that cancels none of those who wait.
        task = self._start(source, held)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def _start(self, source: KeySource, held: _Held) -> asyncio.Task[None]:
        if held.fetching is None:
            held.tried_at = self._clock()
            held.fetching = asyncio.create_task(self._load(source, held))
        return held.fetching

    async def _load(self, source: KeySource, held: _Held) -> None:
        try:
            held.keys, max_age = await self._read(source, held)
            held.fresh_for = min(MAX_FRESH, max(MIN_FRESH, max_age if max_age is not None else FRESH))
            held.good_at, held.problem = self._clock(), None
            self._metrics.key_refreshes.labels("ok").inc()
        except (FetchError, JwkSetError, OSError, ValueError) as error:
            self._metrics.key_refreshes.labels("failed").inc()
            held.problem = str(error) or type(error).__name__
            log.warning("keys_not_fetched", source=describe(source), reason=held.problem)
        finally:
            held.fetching = None

    async def _read(self, source: KeySource, held: _Held) -> tuple[tuple[VerifyingKey, ...], int | None]:
        match source:
            case SharedSecret(secret):
                return (shared_secret(secret.get_secret_value()),), None
            case InlineJwks(text):
                return read_jwk_set(orjson.loads(text)), None
            case JwksFile(path):
                return _read_file(path, held), 0
            case JwksUrl(url):
                document = await fetch_json(self._transport, url)
                return read_jwk_set(document.value), document.max_age
            case Discovery(issuer, url):
                configuration = (await fetch_json(self._transport, url)).value
                # OIDC Discovery 1.0 §4.3: a document that speaks for somebody else is not the issuer's.
                if not isinstance(configuration, dict) or configuration.get("issuer") != issuer:
                    named = configuration.get("issuer") if isinstance(configuration, dict) else None
                    raise FetchError(
                        f"the configuration document is another issuer's: it says {quoted(named)}, the tenant file "
                        f"{quoted(issuer)}; they must be equal, to the last slash"
                    )
                if not isinstance(jwks_uri := configuration.get("jwks_uri"), str):
                    raise FetchError("the configuration document names no jwks_uri")
                # An issuer out there must not point us at our own loopback.
                if url.startswith("https://") and not jwks_uri.lower().startswith("https://"):
                    raise FetchError("the configuration document names keys that are not on https")
                document = await fetch_json(self._transport, jwks_uri)
                return read_jwk_set(document.value), document.max_age


def _read_file(path: Path, held: _Held) -> tuple[VerifyingKey, ...]:
    status = path.stat()
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    if held.keys and stamp == held.stamp:
        return held.keys
    keys = read_jwk_set(orjson.loads(path.read_bytes()))
    held.stamp = stamp
    return keys


def _fitting(keys: tuple[VerifyingKey, ...], kid: str | None, alg: str) -> list[VerifyingKey]:
    # A key without a kid may be the one meant; a key with another kid is not.
    return [key for key in keys if alg in key.algorithms and (kid is None or key.kid is None or key.kid == kid)]


def describe(source: KeySource) -> str:
    """Return a name for the source that may stand in a log: never the secret itself."""
    match source:
        case Discovery(issuer, _):
            return issuer
        case JwksUrl(url):
            return url
        case JwksFile(path):
            return str(path)
        case InlineJwks():
            return "inline jwks"
        case SharedSecret():
            return "shared secret"
