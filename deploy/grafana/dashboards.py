"""Write the dashboards of deploy/grafana, from the root: `python -m deploy.grafana.dashboards`.

A row is a question. `--check` writes nothing and ends with 1 where a file that stands there says something else.
"""

import json
import sys
from pathlib import Path
from typing import Final

from deploy.grafana.panels import ANY, BUDGET, RATE, SHARE, Dashboard, Panel, gauge, hourly, rate, render, slow, top

HERE: Final = Path(__file__).parent
MINTS: Final = 'route=~"/v1/chatkit/sessions|/api/.+"'
OF_TENANT: Final = 'tenant=~"$tenant"'
HOUR: Final = "In an hour."
START: Final = "Since the processes began."
MINTED: Final = 'outcome="minted"'
NOT_MINTED: Final = 'outcome!="minted"'

OVERVIEW = Dashboard(
    "overview",
    "chatkit-mint: overview",
    {
        "Do mints that deserve to succeed do so?": [
            Panel(
                "Failed of those that should succeed",
                {
                    f"over {window}": f"namespace:chatkit_mint_mint_errors:ratio_rate{window}{{%}}"
                    for window in ("5m", "1h", "3d")
                },
                SHARE,
                limits=BUDGET,
                text="Objective: at most 0.1 %. Refusals that callers earned don't count.",
            ),
            Panel("Mints by outcome", {"{outcome}": rate("mints_total", by="outcome")}, RATE),
            Panel("Live sessions", {"live": gauge("sum", "sessions_live")}, width=4, kind="stat"),
            Panel("Mints a second", {"mints": rate("mints_total", MINTED)}, RATE, width=4, kind="stat"),
        ],
        "How long do callers wait?": [
            Panel(
                "A mint",
                {f"{share:.0%}": slow(share, "request_duration_seconds", MINTS) for share in (0.5, 0.95, 0.99)},
                "s",
                text="Lists of live sessions have the same route and are in it.",
            ),
            Panel("Upstream, 99 %", {"{operation}": slow(0.99, "upstream_duration_seconds", by="operation")}, "s"),
            Panel("99 % by route", {"{route}": slow(0.99, "request_duration_seconds", by="route")}, "s"),
        ],
        "Who is refused, and why?": [
            Panel("Refusals by code", {"{code}": rate("refusals_total", by="code")}, RATE, width=12),
            Panel("Mints refused by a limit", {"{limit}": rate("limit_hits_total", by="limit")}, RATE, width=12),
        ],
        "Is upstream well?": [
            Panel("Calls", {"{operation} {outcome}": rate("upstream_calls_total", by="operation, outcome")}, RATE),
            Panel(
                "Repeated calls",
                {"{operation} after {reason}": rate("upstream_retries_total", by="operation, reason")},
                RATE,
                width=6,
            ),
            Panel("Breakers open", {"open": gauge("sum", "upstream_breakers_open")}, width=4, kind="stat", limits=ANY),
            Panel("Drift, by field", {"{field}": hourly("drift_total", by="field")}, width=6, text=HOUR),
        ],
        "Is Redis well?": [
            Panel("Calls", {"calls": rate("store_duration_seconds_count")}, RATE),
            Panel("Calls that failed", {"{error}": rate("store_errors_total", by="error")}, RATE),
            Panel(
                "How long a call takes",
                {f"{share:.0%}": slow(share, "store_duration_seconds") for share in (0.5, 0.99)},
                "s",
            ),
        ],
        "Are keys and policies up to date?": [
            Panel("Issuers without a key", {"missing": gauge("max", "jwks_missing")}, width=4, kind="stat", limits=ANY),
            Panel(
                "Age of the oldest keys",
                {"{namespace}": gauge("max", "jwks_age_seconds", by="namespace")},
                "s",
                limits=((7200.0, "orange"), (72_000.0, "red")),
                text="They serve for a day after they were last confirmed.",
            ),
            Panel("Fetches of keys", {"{outcome}": rate("jwks_refreshes_total", by="outcome")}, RATE, width=6),
            Panel(
                "Files not in force",
                {"failing": gauge("max", "policy_reload_failing")},
                width=3,
                kind="stat",
                limits=ANY,
            ),
            Panel("Tenants", {"tenants": gauge("max", "policy_tenants")}, width=3, kind="stat"),
            Panel(
                "Policies in force, and replicas",
                {"{version}": "count by (version) (chatkit_mint_policy_version_info{%} == 1)"},
                width=12,
                kind="table",
            ),
            Panel(
                "Loads of the tenant files",
                {"{outcome}": hourly("policy_loads_total", by="outcome")},
                width=12,
                text=HOUR,
            ),
        ],
        "What are the processes doing?": [
            Panel(
                "Under way",
                {"requests": gauge("sum", "requests_in_flight"), "mints": gauge("sum", "mints_in_flight")},
                width=6,
            ),
            Panel("Requests by status", {"{status}": rate("requests_total", by="status")}, RATE, width=6),
            Panel("Workers replaced", {"{how}": hourly("worker_restarts_total", by="how")}, width=6, text=HOUR),
            Panel("Log lines lost", {"{stream}": hourly("log_lines_dropped_total", by="stream")}, width=6, text=HOUR),
            Panel("Targets that answer", {"{instance}": 'up{job="chatkit-mint",%}'}, width=12, kind="table"),
            Panel(
                "Versions",
                {"{version}": "count by (version, python) (chatkit_mint_build_info{%})"},
                width=12,
                kind="table",
            ),
        ],
    },
)

TENANT = Dashboard(
    "tenant",
    "chatkit-mint: one tenant",
    {
        "What do its users get?": [
            Panel("Mints by outcome", {"{outcome}": rate("mints_total", OF_TENANT, "outcome")}, RATE, width=12),
            Panel(
                "Minted, of all that were asked for",
                {"minted": f"{rate('mints_total', f'{OF_TENANT},{MINTED}')} / {rate('mints_total', OF_TENANT)}"},
                SHARE,
                width=6,
            ),
            Panel("Live sessions", {"{tenant}": top(gauge("sum", "sessions_live", OF_TENANT, "tenant"))}, width=6),
        ],
        "Which limits do they meet?": [
            Panel("Mints refused by a limit", {"{limit}": rate("limit_hits_total", OF_TENANT, "limit")}, RATE, width=24)
        ],
        "What went wrong upstream?": [
            Panel(
                "Breaker opened",
                {"{tenant}": top(gauge("sum", "upstream_breaker_opens_total", OF_TENANT, "tenant"))},
                text=START,
            ),
            Panel("Orphans", {"{tenant}": top(hourly("orphans_total", OF_TENANT, "tenant"))}, text=HOUR),
            Panel(
                "Ended uncancelled",
                {"{tenant}": top(gauge("sum", "sessions_expired_uncancelled_total", OF_TENANT, "tenant"))},
                text=START,
            ),
        ],
        "Which tenants ask most, and which fail most?": [
            Panel(
                "Minted in an hour",
                {"{tenant}": top(hourly("mints_total", MINTED, "tenant"))},
                width=12,
                kind="table",
            ),
            Panel(
                "Not minted in an hour",
                {"{tenant}": top(hourly("mints_total", NOT_MINTED, "tenant, outcome"))},
                width=12,
                kind="table",
            ),
        ],
    },
    {"tenant": "label_values(chatkit_mint_mints_total{%}, tenant)"},
)

REVOCATION = Dashboard(
    "revocation",
    "chatkit-mint: revocation",
    {
        "Are logouts confirmed within five seconds?": [
            Panel(
                "Late, or not at all",
                {
                    f"over {window}": f"namespace:chatkit_mint_logout_errors:ratio_rate{window}{{%}}"
                    for window in ("5m", "1h", "3d")
                },
                SHARE,
                limits=BUDGET,
                text="Objective: at most 0.1 %. What still waits is not in it: see below.",
            ),
            Panel(
                "Late in an hour",
                {"late": "sum (namespace:chatkit_mint_logout_errors:increase1h{%})"},
                width=4,
                kind="stat",
                limits=ANY,
            ),
            Panel(
                "Requests",
                {"{route} {status}": rate("requests_total", 'route=~"/v1/.*logout.*"', "route, status")},
                RATE,
                width=12,
            ),
        ],
        "What waits to be cancelled?": [
            Panel("Users with a session that must end", {"users": gauge("max", "cancel_queue_users")}, width=12),
            Panel(
                "Longest wait",
                {"waited": gauge("max", "cancel_oldest_pending_seconds")},
                "s",
                width=12,
                limits=((5.0, "orange"), (60.0, "red")),
            ),
        ],
        "How long did sessions live on that had to end?": [
            Panel("Half of them", {"{reason}": slow(0.5, "exposure_seconds", by="reason")}, "s"),
            Panel(
                "99 %",
                {"{reason}": slow(0.99, "exposure_seconds", by="reason")},
                "s",
                limits=((5.0, "orange"), (30.0, "red")),
            ),
            Panel(
                "All",
                {"{le}": "sum by (le) (increase(chatkit_mint_exposure_seconds_bucket{%}[$__rate_interval]))"},
                "s",
                kind="heatmap",
            ),
        ],
        "What became of the cancels?": [
            Panel("Tries", {"{reason}: {outcome}": rate("cancels_total", by="reason, outcome")}, RATE),
            Panel(
                "Upstream's answers", {"{outcome}": rate("upstream_calls_total", 'operation="cancel"', "outcome")}, RATE
            ),
            Panel(
                "Upstream's time",
                {
                    f"{share:.0%}": slow(share, "upstream_duration_seconds", 'operation="cancel"')
                    for share in (0.5, 0.99)
                },
                "s",
            ),
        ],
        "What could not be revoked?": [
            Panel(
                "Ended uncancelled, by tenant",
                {"{tenant}": top(gauge("sum", "sessions_expired_uncancelled_total", by="tenant"))},
                width=12,
                text=START,
            ),
            Panel("Orphans, by tenant", {"{tenant}": top(hourly("orphans_total", by="tenant"))}, width=12, text=HOUR),
        ],
    },
)

ALL: Final = (OVERVIEW, TENANT, REVOCATION)


def main() -> int:
    """Write, or compare; return the exit code."""
    texts = {HERE / f"{each.name}.json": json.dumps(render(each), indent=1) + "\n" for each in ALL}
    if "--check" in sys.argv:
        return int(any(not file.exists() or file.read_text() != text for file, text in texts.items()))
    for file, text in texts.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
