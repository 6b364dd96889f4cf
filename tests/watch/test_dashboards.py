"""The dashboards: JSON that Grafana lays out as meant. Their queries are asked in test_scenario.py."""

import subprocess
import sys
from itertools import combinations
from typing import Any

import pytest
import yaml

from support.processes import ROOT
from watch.parts import GRAFANA, dashboards, panels

UNITS = {"short", "ops", "percentunit", "s"}
NAMES = sorted(dashboards())


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dashboards()[request.param]


def test_they_are_what_the_script_makes() -> None:
    command = [sys.executable, "-m", "deploy.grafana.dashboards", "--check"]
    assert subprocess.run(command, cwd=ROOT, timeout=30, check=False).returncode == 0, "make generated"
    assert NAMES == ["overview", "revocation", "tenant"]


def test_no_two_have_one_uid_or_title() -> None:
    for key in ("uid", "title"):
        assert len({each[key] for each in dashboards().values()}) == len(NAMES)


def test_every_panel_asks_the_source_that_is_provisioned(dashboard: dict[str, Any]) -> None:
    file = GRAFANA / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    asked = [panel["datasource"] for panel in panels(dashboard)]
    asked += [target["datasource"] for panel in panels(dashboard) for target in panel["targets"]]
    asked += [variable["datasource"] for variable in dashboard["templating"]["list"]]
    assert all(each == {"type": source["type"], "uid": source["uid"]} for each in asked)


def test_no_panel_lies_on_another_or_beyond_the_edge(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert place["w"] > 0
        assert place["h"] > 0
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_ids_are_unique_and_rows_are_questions(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows
    assert all(row.endswith("?") for row in rows)
    assert dashboard["panels"][0]["type"] == "row"


def test_every_panel_has_a_title_a_unit_a_legend_and_thresholds(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["type"] in ("timeseries", "stat", "heatmap", "table")
        assert panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        assert all(target["legendFormat"] for target in panel["targets"])


def test_titles_are_said_once(dashboard: dict[str, Any]) -> None:
    row, seen = "", set()
    for panel in dashboard["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        assert (row, panel["title"]) not in seen
        seen.add((row, panel["title"]))


def test_every_variable_that_is_asked_for_is_there(dashboard: dict[str, Any]) -> None:
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels(dashboard):
        for target in panel["targets"]:
            assert 'namespace=~"$namespace"' in target["expr"]
            assert ("$tenant" not in target["expr"]) or "tenant" in known
