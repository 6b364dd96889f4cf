"""What all panels of the dashboards share, in the JSON that Grafana reads (schema version 41)."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
COLUMNS: Final = 24
HEIGHT: Final = 8
SELECT: Final = 'namespace=~"$namespace"'
"""Stands in every selector: of several installations that one Prometheus knows, those that were chosen."""

RATE: Final = "ops"
SHARE: Final = "percentunit"
BUDGET: Final = ((0.001, "orange"), (0.0144, "red"))
"""What the objective allows, and what uses a month's up in two days."""
ANY: Final = ((1.0, "red"),)
Kind = Literal["timeseries", "stat", "heatmap", "table"]


OPTIONS: Final[dict[Kind, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    },
    "heatmap": {
        "calculate": False,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "yAxis": {"unit": "s"},
        "cellGap": 1,
        "showValue": "never",
        "legend": {"show": True},
        "tooltip": {"mode": "single"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    },
    "table": {"showHeader": True, "frameIndex": 0},
}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend. `{x}` in a legend is the value of label x, `%` in a query our selector."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    kind: Kind = "timeseries"
    limits: tuple[tuple[float, str], ...] = ()
    """From which values on it has which colour."""
    text: str = ""


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels by the question that they answer."""

    name: str
    title: str
    rows: dict[str, list[Panel]]
    variables: dict[str, str] = field(default_factory=dict)
    """Besides the namespace: the query of each one's values."""


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """Return how often a second something is counted, added up *by* labels."""
    return f"sum{_by(by)}(rate({_select(metric, labels)}[$__rate_interval]))"


def hourly(metric: str, labels: str = "", by: str = "") -> str:
    """Return how much was counted within an hour."""
    return f"sum{_by(by)}(increase({_select(metric, labels)}[1h]))"


def slow(share: float, metric: str, labels: str = "", by: str = "") -> str:
    """Return what a *share* of the observations stays below."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', labels, by=f'{by}, le' if by else 'le')})"


def gauge(how: str, metric: str, labels: str = "", by: str = "") -> str:
    """Return a gauge of all processes as one, by `sum` or `max`."""
    return f"{how}{_by(by)}({_select(metric, labels)})"


def top(query: str) -> str:
    """Return the ten largest: there may be a thousand tenants."""
    return f"topk(10, {query})"


def _select(metric: str, labels: str) -> str:
    return f"chatkit_mint_{metric}{{%{',' if labels else ''}{labels}}}"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for question, row in dashboard.rows.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": question,
                "collapsed": False,
                "panels": [],
                "gridPos": _place(0, top, COLUMNS, 1),
            }
        )
        left, top = 0, top + 1
        for panel in row:
            if left + panel.width > COLUMNS:
                left, top = 0, top + HEIGHT
            panels.append({"id": len(panels) + 1, "gridPos": _place(left, top, panel.width, HEIGHT), **_panel(panel)})
            left += panel.width
        top += HEIGHT
    variables = {"namespace": "label_values(chatkit_mint_build_info, namespace)", **dashboard.variables}
    return {
        "uid": f"chatkit-mint-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["chatkit-mint"],
        "schemaVersion": 41,
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "chatkit-mint",
                "tooltip": "",
                "icon": "external link",
                "targetBlank": False,
                "tags": ["chatkit-mint"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {"list": [_variable(name, query) for name, query in variables.items()]},
        "panels": panels,
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    steps = [{"value": None, "color": "green"}, *({"value": value, "color": color} for value, color in panel.limits)]
    style = {
        "fillOpacity": 10,
        "showPoints": "never",
        "spanNulls": True,
        "thresholdsStyle": {"mode": "dashed" if panel.limits else "off"},
    }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": style if panel.kind == "timeseries" else {},
            },
            "overrides": [],
        },
        "options": OPTIONS[panel.kind],
        "targets": [_target(panel, *query, ref) for query, ref in zip(panel.queries.items(), "ABCD", strict=False)],
    }


def _target(panel: Panel, legend: str, query: str, ref: str) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": query.replace("%", SELECT),
        "legendFormat": legend.replace("{", "{{").replace("}", "}}"),
        "format": panel.kind if panel.kind in ("heatmap", "table") else "time_series",
        "instant": panel.kind == "table",
        "range": panel.kind != "table",
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query.replace("%", SELECT), "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
