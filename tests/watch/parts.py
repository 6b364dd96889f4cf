"""A real Prometheus, and the rules and dashboards as it is to read them."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from support.checkers import checker
from support.processes import ROOT, Process, clean_environ, free_port

RULES = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
TRAILING = re.compile(r"\s*(>=?|<=?|==)\s*[\d.]+(\s*\*\s*[\d.]+)?\s*$")
"""The comparison at the end of an alert's condition."""

Rule = dict[str, Any]


def groups() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.rules.yml"))
    return [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]


def rules(kind: str) -> dict[str, Rule]:
    """Rules of a kind (`alert`, `record`) by name."""
    found = [rule for group in groups() for rule in group["rules"] if kind in rule]
    named = {rule[kind]: rule for rule in found}
    assert len(named) == len(found), "two rules have one name"
    return named


def conditions(expression: str) -> list[str]:
    """What an alert's expression compares, without the comparisons."""
    return [TRAILING.sub("", part).strip() for part in re.split(r"^\s*and ", expression, flags=re.MULTILINE)]


def dashboards() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(GRAFANA.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something; rows are headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Where each query of a panel stands, and the query with what Grafana would put in."""
    put_in = {"$namespace": ".*", "$tenant": ".*", "$__rate_interval": "1m"}
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in put_in.items():
                    expression = expression.replace(variable, value)
                yield f"{name}: {panel['title']} {target['refId']}", expression


class Prometheus:
    """A server of its own, on loopback, that scrapes *targets* and evaluates the rules in *rule_files*."""

    def __init__(self, home: Path, targets: list[str], rule_files: Path, *, every: str) -> None:
        home.mkdir()
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [f"{rule_files}/*.rules.yml"],
            "scrape_configs": [{"job_name": "chatkit-mint", "static_configs": [{"targets": targets}]}],
        }
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        options = {
            "config.file": home / "prometheus.yml",
            "storage.tsdb.path": home / "data",
            "web.listen-address": self.url.removeprefix("http://"),
        }
        self.process = Process(
            *(f"--{name}={value}" for name, value in options.items()),
            output=home / "log",
            environ=clean_environ(GOMAXPROCS="1"),
            command=[checker("prometheus")],
        )
        self.http = httpx2.Client(base_url=self.url, timeout=10.0, trust_env=False)

    def wait(self) -> None:
        self.process.wait_ready(f"{self.url}/-/ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that the expression has now, but for those that are no number."""
        answer = self.http.post("/api/v1/query", data={"query": expression})
        told = answer.json()
        assert told["status"] == "success", f"{expression}: {told.get('error')}"
        return [sample for sample in told["data"]["result"] if sample["value"][1] != "NaN"]

    def alerts(self, state: str = "firing") -> dict[str, list[dict[str, Any]]]:
        """Alerts in this state, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.http.get("/api/v1/alerts").json()["data"]["alerts"]:
            if alert["state"] == state:
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def close(self) -> None:
        self.http.close()
        self.process.stop()
