"""Write the rules of deploy/prometheus as a PrometheusRule, for clusters with the Prometheus operator.

`--check` writes nothing and ends with 1 where the file that stands there says something else.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RULES = HERE / "prometheus"
TARGET = HERE / "kubernetes" / "base" / "rules.yaml"
HEAD = "# Made from deploy/prometheus/*.rules.yml by `make generated`; change it there.\n"


class _Plain(yaml.SafeDumper):
    """Queries of several lines stay readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def prometheus_rule() -> str:
    """Return the object with all groups, by file name."""
    groups: list[dict[str, Any]] = []
    for file in sorted(RULES.glob("*.rules.yml")):
        groups += yaml.safe_load(file.read_text())["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "chatkit-mint"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.dump(rule, Dumper=_Plain, sort_keys=False, width=1_000, allow_unicode=True)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(TARGET.read_text() != prometheus_rule())
    TARGET.write_text(prometheus_rule())
