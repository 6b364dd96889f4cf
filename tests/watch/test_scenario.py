"""A real Prometheus, really running services, and all that can go wrong with them: every query has an answer."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from api.parts import eventually
from support.checkers import checker
from watch.parts import conditions, queries, rules
from watch.scenario import Scene, staged

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

ALERTS = set(rules("alert"))
AT_THE_END = {"ChatkitMintDown", "ChatkitMintInstanceDown"}
"""Fire once services are gone."""
NEVER = {"ChatkitMintInternalErrors"}
"""A defect that is known would have been mended: promtool's tests alone see it fire."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    checker("prometheus")
    with staged(tmp_path_factory.mktemp("watch")) as scene:
        scene.play()
        with suppress(AssertionError):  # the test of alerts says which don't
            eventually(lambda: scene.prometheus.alerts().keys() >= ALERTS - AT_THE_END - NEVER, within=20)
        yield scene


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_prometheus_takes_what_is_scraped(scene: Scene, accept: str) -> None:
    for service in (scene.pair.service, scene.lone):
        answer = service.ops("/metrics", accept=accept)
        assert answer.status_code == 200
        if not accept:
            checked = subprocess.run(
                [checker("promtool"), "check", "metrics"],
                input=answer.content,
                capture_output=True,
                timeout=30,
                check=False,
            )
            assert (checked.returncode, checked.stderr, checked.stdout) == (0, b"", b"")
    told = scene.prometheus.http.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert [target["lastError"] for target in told] == ["", ""]


def test_every_panel_shows_something(scene: Scene) -> None:
    """Figures other than 0, but for what is over when it is looked at."""
    empty = {place for place, query in queries() if not any(map(value, scene.prometheus.query(query)))}
    assert empty <= {"overview: Under way B"}


def value(sample: dict[str, Any]) -> float:
    return float(sample["value"][1])


def test_every_recorded_figure_is_there(scene: Scene) -> None:
    for name, rule in rules("record").items():
        assert scene.prometheus.query(name), name
        assert scene.prometheus.query(rule["expr"]), name


def test_every_condition_of_an_alert_has_a_value(scene: Scene) -> None:
    for name in ALERTS - {"ChatkitMintDown"}:
        for condition in conditions(rules("alert")[name]["expr"]):
            assert not re.search(r"[<>]", condition), condition
            assert scene.prometheus.query(condition), condition


def test_every_alert_fires_that_is_about_what_happened(scene: Scene) -> None:
    firing = scene.prometheus.alerts()
    assert firing.keys() == ALERTS - AT_THE_END - NEVER
    for alert in (alert for alerts in firing.values() for alert in alerts):
        told = alert["annotations"]["summary"] + alert["annotations"]["description"]
        assert "<" not in told  # what Prometheus leaves where a template has gone wrong, or has no value


def test_alerts_that_nothing_answers(scene: Scene) -> None:
    """Last: one service goes, then the other."""
    scene.lone.close()
    eventually(lambda: "ChatkitMintInstanceDown" in scene.prometheus.alerts())
    assert "ChatkitMintDown" not in scene.prometheus.alerts()
    scene.pair.service.close()
    eventually(lambda: "ChatkitMintDown" in scene.prometheus.alerts())
