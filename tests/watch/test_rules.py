"""The rules by promtool, each alert firing and not firing; and the page that says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.errors import Refusal
from service.http import backchannel, public, servers
from service.http.starters import STARTERS
from service.observe.metrics import REASONS, Metrics
from service.sessions.cancel import NOT_RECORDED
from service.settings import Settings
from service.store.revocations import REASON
from support.checkers import checker
from support.processes import ROOT
from watch.parts import RULES, rules

TESTS = sorted((RULES / "tests").glob("*.test.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def promtool(*words: str | Path) -> str:
    told = subprocess.run(
        [checker("promtool"), *map(str, words)], capture_output=True, text=True, timeout=50, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", *RULES.glob("*.rules.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("figure", ["mint_errors:ratio_rate", "logout_errors:ratio_rate", "logout_errors:increase"])
def test_a_figure_is_the_same_over_every_window(figure: str) -> None:
    told = {name: rule["expr"] for name, rule in rules("record").items() if figure in name}
    assert len(told) == (2 if "increase" in figure else 5)
    assert len({expr.replace(f"[{name.partition(figure)[2]}]", "[]") for name, expr in told.items()}) == 1


@pytest.mark.parametrize("pace", ["Fast", "Steady", "Slow"])
def test_both_budgets_are_watched_alike(pace: str) -> None:
    mints, logouts = (rules("alert")[f"ChatkitMint{what}Budget{pace}"] for what in ("Mint", "Logout"))
    assert mints["expr"].replace("mint_errors", "logout_errors") == logouts["expr"]
    assert (mints["for"], mints["labels"]) == (logouts["for"], logouts["labels"])


def test_the_objectives_count_what_mints_and_what_logs_out() -> None:
    routes = {*STARTERS, *(each.path for module in (public, backchannel, servers) for each in module.OPERATIONS)}
    text = (RULES / "objectives.rules.yml").read_text()
    (mints,) = set(re.findall(r'route=~"([^"]+)",method="POST"', text))
    assert {route for route in routes if re.fullmatch(mints, route)} == {"/v1/chatkit/sessions", *STARTERS}
    (logouts,) = set(re.findall(r'route=~"([^"]+)",status', text))
    found = {route for route in routes if re.fullmatch(logouts, route)}
    assert found == {"/v1/logout", "/v1/logout/backchannel", f"{servers.USER}/logout"}


def test_every_alert_is_tried_both_ways() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for case in (case for file in TESTS for case in yaml.safe_load(file.read_text())["tests"]):
        for asked in case["promql_expr_test"]:
            if found := re.fullmatch(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}', asked["expr"]):
                (fires if asked["exp_samples"] else silent).add(found[1])
    assert fires == silent == set(rules("alert"))


@pytest.mark.parametrize(("name", "rule"), rules("alert").items())
def test_an_alert_says_what_is_wrong_how_much_and_where_to_read_on(name: str, rule: dict[str, Any]) -> None:
    assert name.startswith("ChatkitMint")
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    told = rule["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    assert told["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert told["summary"].endswith(".")
    assert told["description"].endswith(".")


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert SECTIONS.keys() == set(rules("alert"))
    for name, text in SECTIONS.items():
        lead = text.replace("**Check** and **do**", "**Check.** **Do.**").replace("**Check**", "**Check.**")
        places = [lead.find(f"**{word}") for word in ("Means.**", "Users see**", "Check.**", "Do.**")]
        assert -1 not in places, name
        assert places == sorted(places), name


def test_the_runbook_names_what_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    settings = {name.lower() for name in re.findall(r"CHATKIT_MINT_([A-Z_]+)", RUNBOOK)}
    assert settings <= Settings.model_fields.keys()
    events = set(re.findall(r'"event":"(\w+)"', RUNBOOK)) - {"request", "log_lines_dropped"}
    assert events
    assert not [event for event in events if f'"{event}"' not in code]
    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOK)) <= {heading.lower() for heading in SECTIONS}
    codes = set(re.findall(r"`(\w+_(?:unavailable|error))`", RUNBOOK))
    assert codes <= {kind.code for kind in refusals(Refusal)}


def refusals(kind: type[Refusal]) -> list[type[Refusal]]:
    return [kind, *(each for below in kind.__subclasses__() for each in refusals(below))]


def test_every_counter_whose_increase_alone_is_an_alert_begins_at_zero() -> None:
    metrics = Metrics()
    metrics.know(["acme"])
    families = list(text_string_to_metric_families(metrics.exposition("")[0].decode()))
    zeros = {sample.name for family in families for sample in family.samples if sample.value == 0}
    asked = set(re.findall(r"increase\((\w+)", (RULES / "alerts.rules.yml").read_text()))
    assert len(asked) > 3
    assert asked <= zeros
    assert {REASON, NOT_RECORDED} < set(REASONS)


def test_every_metric_that_a_rule_or_panel_names_exists() -> None:
    table = (ROOT / "docs" / "metrics.md").read_text()
    told = set(re.findall(r"^\| `(\w+)` \| (\w+)", table, re.MULTILINE))
    known = {name for name, _ in told}
    known |= {f"{name}_{end}" for name, kind in told if kind == "histogram" for end in ("bucket", "count", "sum")}
    texts = [*RULES.glob("*.rules.yml"), *(ROOT / "deploy" / "grafana").glob("*.json")]
    for file in texts:
        used = set(re.findall(r"(?<![:\w])chatkit_mint_\w+(?=[{\[])", file.read_text()))
        assert used, file
        assert used <= known, file
