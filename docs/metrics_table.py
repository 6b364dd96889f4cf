"""The table of all metrics, for people: `make generated` writes it to docs/metrics.md, and a test compares."""

import sys
from pathlib import Path
from typing import Any

from prometheus_client import Histogram

from service.observe.metrics import PREFIX, TENANTS, Metrics

TARGET = Path(__file__).with_name("metrics.md")
INTRODUCTION = f"""# Metrics

Made from the code by `make generated`. All are at `/metrics` of the operations listener, in Prometheus's text format
or, when asked for, as OpenMetrics: there the durations of requests carry the trace id of a sampled request as exemplar
(with one worker; the library has none over several processes). With several workers a scrape is the sum over all of
them, whichever answers.

Tenant names are those of loaded files, up to {TENANTS:,} (`CHATKIT_MINT_METRICS_TENANTS`); the tenants past that share
`other`. Gauges are measured every five seconds. Of a gauge marked *sum* each process has its own share, replicas too:
add them up. Of one marked *max* all tell the same, or the worst counts.

| name | kind | labels | what it tells |
|---|---|---|---|
"""


def metrics_table() -> str:
    """Return docs/metrics.md."""
    return INTRODUCTION + "".join(_row(metric) for metric in Metrics().declared)


def _row(metric: Any) -> str:
    family = next(iter(metric.describe()))
    name = family.name + ("_total" if family.type == "counter" else "")
    mode = {"livesum": ", sum", "livemax": ", max"}.get(getattr(metric, "_multiprocess_mode", ""), "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001  (there is no other way to ask)
    text = family.documentation
    if isinstance(metric, Histogram):
        bounds = [bound for bound in metric._upper_bounds if bound != float("inf")]  # noqa: SLF001
        text += f" Buckets from {bounds[0]:g} to {bounds[-1]:g}."
    assert name.startswith(PREFIX)  # noqa: S101  (the registry's namespace)
    return f"| `{name}` | {family.type}{mode} | {labels} | {text} |\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(metrics_table())
    else:
        TARGET.write_text(metrics_table(), encoding="utf-8")
