"""A few of the metrics, as numbers for the demo page: read from the registry that `/metrics` shows."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import prometheus_client
from prometheus_client.samples import Sample

from service.observe.metrics import Metrics

MINTS: Final = "/v1/chatkit/sessions"


def meters(metrics: Metrics) -> dict[str, Any]:
    """Return them. The median is of all since the start, in milliseconds; None before the first."""
    mints, cancels = _sums(metrics.mints, "outcome"), _sums(metrics.cancels, "outcome")
    return {
        "minted": mints.pop("minted", 0),
        "refused": {code: count for code, count in mints.items() if count},
        "cancelled": cancels["cancelled"],
        "cancels_failed": cancels["failed"],
        "live": sum(sample.value for sample in _samples(metrics.sessions_live)),
        "median_ms": _median(metrics),
    }


def _sums(metric: prometheus_client.Counter, label: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for sample in _samples(metric):
        sums[sample.labels[label]] += int(sample.value)
    return sums


def _median(metrics: Metrics) -> float | None:
    """Return where half of the requests to mint were answered, by straight lines within the histogram's buckets."""
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in _samples(metrics.request_seconds)
        if sample.name.endswith("_bucket") and sample.labels["route"] == MINTS
    ]
    half = buckets[-1][1] / 2 if buckets else 0
    below, fewer = 0.0, 0.0
    for limit, count in buckets:
        if half and count >= half:
            top = below if limit == float("inf") else limit
            return round(1000 * (below + (top - below) * (half - fewer) / (count - fewer)), 2)
        below, fewer = limit, count
    return None


def _samples(metric: Any) -> Iterator[Sample]:
    for family in metric.collect():
        yield from family.samples
