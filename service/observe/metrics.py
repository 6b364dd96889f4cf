"""Every metric of the service, in a registry of its own so that two apps in a process don't mix.

Labels are bounded: tenant names come from loaded files and up to a ceiling, routes and codes from this code, never
from a caller. docs/metrics.md is made from what is here.
"""

import platform
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Literal, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from service import __version__
from service.contract import LEAVES, dotted

PREFIX = "chatkit_mint"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, 1 ms to 10 s: below is noise, above is a timeout."""
EXPOSURES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds, up to how long a session can live."""
STORE_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds; Redis answers in less than one of ours or not in time."""
TENANTS: Final = 1000
"""Tenants with a name of their own in the metrics; the others share one."""
OTHER: Final = "other"
REASONS: Final = ("logout", "cancel", "session_limit", "tenant_revoked", "not_recorded")
"""Why sessions are cancelled."""


class _Unasked:
    """A metric isn't asked each time whether it has its labels: one that lacks them has no value, and fails anyhow."""

    def _raise_if_not_observable(self) -> None:
        pass


class Counter(_Unasked, prometheus_client.Counter):
    """What only grows."""


class Gauge(_Unasked, prometheus_client.Gauge):
    """What goes up and down."""


class Histogram(_Unasked, prometheus_client.Histogram):
    """How large what was observed was."""


M = TypeVar("M", Counter, Gauge, Histogram)

# When each series began: it would double a scrape, and over several processes there is no such thing.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Every metric of the service. Units are in the names, as Prometheus wants them.

    With a *family*, the directory of `observe/family.py`, a scraper sees the sum over its members. Past *tenants*
    names, tenants share `other`.
    """

    def __init__(self, family: Path | None = None, *, tenants: int = TENANTS) -> None:
        self.registry = CollectorRegistry()
        """What this process counts."""
        self.scraped = CollectorRegistry()
        """What a scraper sees. What is found out only when it asks is registered here, by a collector of its own."""
        if family is None:
            self.scraped.register(self.registry)
        else:
            MultiProcessCollector(self.scraped, str(family))  # type: ignore[no-untyped-call]
        self._most_tenants = tenants
        self.lost: SimpleQueue[tuple[str, int]] = SimpleQueue()
        """Stream and count of lines that a sink has lost. A queue that needs no lock: a line may be lost while this
        thread holds the library's, and so may a destructor's."""
        self.declared: list[Counter | Gauge | Histogram] = []
        """All of them, in order."""
        self._named: dict[str, str] = {}
        self._live: set[str] = set()
        self._requests()
        self._mints()
        self._cancels()
        self._upstream()
        self._around()
        self._begin_at_zero()

    def _requests(self) -> None:
        self.requests = self._counter(
            "requests", "Requests answered, by route, method and status.", "route", "method", "status"
        )
        self.request_seconds = self._histogram(
            "request_duration_seconds", "Seconds from request to answer, by route.", "route"
        )
        self.in_flight = self._sum("requests_in_flight", "Requests being answered now.")
        self.refusals = self._counter("refusals", "Requests refused, by the answer's code.", "code")

    def _mints(self) -> None:
        self.mints = self._counter(
            "mints", "Sessions asked for, by tenant and outcome: `minted` or the refusal's code.", "tenant", "outcome"
        )
        self.limit_hits = self._counter(
            "limit_hits",
            "Mints refused by a limit, by tenant and whose it is: `mint` (the user's), `tenant`, `address`, `live`.",
            "tenant",
            "limit",
        )
        self.sessions_live = self._sum(
            "sessions_live", "Sessions that have neither ended nor been cancelled.", "tenant"
        )
        self.mints_in_flight = self._sum("mints_in_flight", "Mints under way now.")
        self.drift = self._counter(
            "drift", "Values that upstream resolved differently than policy asked, by field.", "field"
        )

    def _cancels(self) -> None:
        self.cancels = self._counter(
            "cancels", "Tries to cancel a session, by reason and outcome.", "reason", "outcome"
        )
        self.exposure = self._histogram(
            "exposure_seconds",
            "Seconds from the moment that a session had to end until upstream confirmed, by reason.",
            "reason",
            buckets=EXPOSURES,
        )
        self.expired_uncancelled = self._counter(
            "sessions_expired_uncancelled", "Sessions that ended by themselves before a cancel was confirmed.", "tenant"
        )
        self.orphans = self._counter(
            "orphans", "Sessions that upstream may have created and that we can't revoke.", "tenant"
        )
        self.queue_users = self._most("cancel_queue_users", "Users with a session that must still be cancelled.")
        self.oldest_pending = self._most(
            "cancel_oldest_pending_seconds",
            "Seconds that the longest waiting of them has waited.",
        )

    def _upstream(self) -> None:
        self.upstream_calls = self._counter(
            "upstream_calls", "Calls upstream, by operation and outcome.", "operation", "outcome"
        )
        self.upstream_seconds = self._histogram(
            "upstream_duration_seconds", "Seconds that an upstream call took, by operation.", "operation"
        )
        self.upstream_retries = self._counter(
            "upstream_retries", "Calls upstream that were repeated, by operation and reason.", "operation", "reason"
        )
        self.breaker_opens = self._counter(
            "upstream_breaker_opens", "Times that creates were held back after failures in a row.", "tenant"
        )
        self.breakers_open = self._sum(
            "upstream_breakers_open", "Upstreams (by base URL and key) from which creates are held back now."
        )

    def _around(self) -> None:
        self.key_refreshes = self._counter("jwks_refreshes", "Fetches of issuers' signing keys, by outcome.", "outcome")
        self.key_age = self._most("jwks_age_seconds", "Seconds since the least recently confirmed issuer's keys were.")
        self.keys_missing = self._most("jwks_missing", "Issuers of whom there is no usable key.")
        self.policy_loads = self._counter("policy_loads", "Loads of the tenant files, by outcome.", "outcome")
        self.policy_failing = self._most("policy_reload_failing", "1 while the tenant files on disk are not in force.")
        self.policy_version = self._most(
            "policy_version_info", "1 for the version of the policies in force.", "version"
        )
        self.policy_tenants = self._most("policy_tenants", "Tenants in force.")
        self.store_seconds = self._histogram(
            "store_duration_seconds",
            "Seconds that a call to Redis took, the wait for its turn included; one may run scripts of many callers.",
            buckets=STORE_BUCKETS,
        )
        self.store_errors = self._counter("store_errors", "Calls to Redis that failed, by kind of error.", "error")
        self.worker_restarts = self._counter(
            "worker_restarts", "Worker processes that ended and were replaced, by how they ended.", "how"
        )
        self.log_drops = self._counter(
            "log_lines_dropped", "Lines that whoever reads them was too slow for, by stream.", "stream"
        )
        self.build = self._most("build_info", "1, with the version of the service and of Python.", "version", "python")
        self.build.labels(__version__, platform.python_version()).set(1)

    def _begin_at_zero(self) -> None:
        """Show what alerts look for before it happens: of a counter that begins at 1, Prometheus sees no increase."""
        self.refusals.labels("internal_error")
        for reason in REASONS:
            self.exposure.labels(reason)
            for outcome in ("cancelled", "failed", "expired"):
                self.cancels.labels(reason, outcome)
        for path in LEAVES:
            if path[0] in ("workflow", "rate_limits", "chatkit_configuration"):
                self.drift.labels(dotted(path[:2]))
        for outcome in ("ok", "failed"):
            self.key_refreshes.labels(outcome)
            self.policy_loads.labels(outcome)
        for how in ("asked", "failed", "killed"):
            self.worker_restarts.labels(how)
        for stream in ("audit", "log"):
            self.log_drops.labels(stream)
        self._begin_tenant(OTHER)

    def _begin_tenant(self, label: str) -> None:
        self.orphans.labels(label)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._declare(Counter(name, text, labels, namespace=PREFIX, registry=self.registry))

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = BUCKETS) -> Histogram:
        return self._declare(Histogram(name, text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets))

    def _sum(self, name: str, text: str, *labels: str) -> Gauge:
        """Return a gauge of what each process has of its own."""
        return self._gauge(name, text, labels, "livesum")

    def _most(self, name: str, text: str, *labels: str) -> Gauge:
        """Return a gauge of what all processes see alike, or of which the worst counts."""
        return self._gauge(name, text, labels, "livemax")

    def _gauge(self, name: str, text: str, labels: Collection[str], mode: Literal["livesum", "livemax"]) -> Gauge:
        return self._declare(
            Gauge(name, text, labels, namespace=PREFIX, registry=self.registry, multiprocess_mode=mode)
        )

    def _declare(self, metric: M) -> M:
        self.declared.append(metric)
        return metric

    def count_lost_lines(self) -> None:
        """Count what the sinks have lost."""
        while True:
            try:
                stream, lines = self.lost.get_nowait()
            except Empty:
                return
            self.log_drops.labels(stream).inc(lines)

    def know(self, tenants: Collection[str]) -> None:
        """Give the tenants in force names of their own, up to the ceiling.

        Which of too many is the same in every process, and who has a name keeps it.
        """
        fresh = sorted(set(tenants) - self._named.keys(), key=lambda name: blake2b(name.encode()).digest())
        for name in fresh[: max(0, self._most_tenants - len(self._named))]:
            self._named[name] = name
            self._begin_tenant(name)

    def tenant(self, name: str) -> str:
        """Return the label of a tenant."""
        return self._named.get(name, OTHER)

    def set_live(self, by_tenant: Mapping[str, int]) -> None:
        """Set how many sessions are live, of each tenant."""
        labelled = dict.fromkeys(self._live, 0)
        for name, count in by_tenant.items():
            label = self.tenant(name)
            labelled[label] = labelled.get(label, 0) + count
        for label, count in labelled.items():
            self.sessions_live.labels(label).set(count)
        self._live = set(labelled)

    @staticmethod
    @lru_cache(maxsize=16_384)
    def counter(metric: Counter, *labels: str) -> Counter:
        """Return the counter of these labels, found once: prometheus-client takes a lock to look for it each time."""
        return metric.labels(*labels)

    @staticmethod
    @lru_cache(maxsize=1024)
    def histogram(metric: Histogram, *labels: str) -> Histogram:
        """Return the histogram of these labels."""
        return metric.labels(*labels)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the scraper's Accept header asks for, and its content type."""
        self.count_lost_lines()
        encode, content_type = choose_encoder(accept)
        return encode(self.scraped), content_type
