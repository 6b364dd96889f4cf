"""The counters and histograms, in a registry of their own so that two apps in a process don't mix.

Labels are bounded: tenant names come from loaded files, routes and codes from this code, never from a caller.
"""

from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

PREFIX = "chatkit_mint"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, 1 ms to 10 s: below is noise, above is a timeout."""


class Metrics:
    """Every metric of the service. Units are in the names, as Prometheus wants them.

    With a *family*, the directory of `observe/family.py`, a scraper sees the sum over its members.
    """

    def __init__(self, family: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        """What this process counts."""
        self.scraped = CollectorRegistry()
        """What a scraper sees. What is found out only when it asks is registered here, by a collector of its own."""
        if family is None:
            self.scraped.register(self.registry)
        else:
            MultiProcessCollector(self.scraped, str(family))  # type: ignore[no-untyped-call]
        self.requests = self._counter(
            "requests", "Requests answered, by route, method and status.", "route", "method", "status"
        )
        self.request_seconds = self._histogram(
            "request_duration_seconds", "Seconds from request to answer, by route.", "route"
        )
        self.in_flight = Gauge(
            "requests_in_flight",
            "Requests being answered now.",
            namespace=PREFIX,
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.refusals = self._counter("refusals", "Requests refused, by the answer's code.", "code")
        self.mints = self._counter("mints", "Sessions asked for, by tenant and outcome.", "tenant", "outcome")
        self.cancels = self._counter(
            "cancels", "Sessions taken out of service, by reason and outcome.", "reason", "outcome"
        )
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
            "upstream_breaker_opens", "Times that creates were held back after failures in a row, by tenant.", "tenant"
        )
        self.orphans = self._counter(
            "orphans", "Sessions that upstream may have created and that we can't revoke, by tenant.", "tenant"
        )
        self.drift = self._counter(
            "drift", "Values that upstream resolved differently than policy asked, by field.", "field"
        )
        self.key_refreshes = self._counter("jwks_refreshes", "Fetches of issuers' signing keys, by outcome.", "outcome")
        self.policy_loads = self._counter("policy_loads", "Loads of the tenant files, by outcome.", "outcome")
        self.log_drops = self._counter(
            "log_lines_dropped", "Lines that whoever reads them was too slow for, by stream.", "stream"
        )
        self.worker_restarts = self._counter(
            "worker_restarts", "Worker processes that ended and were replaced, by how they ended.", "how"
        )
        self.store_errors = self._counter("store_errors", "Calls to Redis that failed.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=PREFIX, registry=self.registry, buckets=BUCKETS)

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
        encode, content_type = choose_encoder(accept)
        return encode(self.scraped), content_type
