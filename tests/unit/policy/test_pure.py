"""A decision touches nothing outside, and merging templates doesn't care how a chain of them is grouped."""

import builtins
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.decide import decide
from service.policy.load import Merged
from service.policy.source import Source
from service.policy.tenant import Policies
from service.principal import Principal

# As in a tenant file: what is a map in one layer is a map in all.
LEAF = st.one_of(st.integers(), st.text(max_size=4), st.booleans(), st.lists(st.integers(), max_size=3))
TREE = st.recursive(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), LEAF, max_size=3),
    lambda inner: st.fixed_dictionaries({}, optional={"a": LEAF, "b": LEAF, "map_1": inner, "map_2": inner}),
    max_leaves=8,
)


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    result = Merged()
    for layer in layers:
        result.put(Source("file", layer, {}))
    return result.tree


@given(TREE, TREE, TREE)
def test_merging_is_associative(root: dict[str, Any], middle: dict[str, Any], top: dict[str, Any]) -> None:
    assert merged(merged(root, middle), top) == merged(root, merged(middle, top)) == merged(root, middle, top)


@given(TREE, TREE)
def test_merging_changes_neither_of_its_parts(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = repr((below, above))
    merged(below, above)
    assert repr((below, above)) == before


@given(TREE)
def test_merging_with_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    assert merged({}, tree) == merged(tree, {}) == tree


def test_a_decision_does_no_io_and_reads_no_clock(
    acme: str, load: Callable[..., Policies], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "rules: [{name: a, when: now > timestamp('2020-01-01T00:00:00Z'), session: {workflow: {version: '2'}}}]\n"
    rollout = "rollout: [{name: r, split: [{percent: 50, session: {workflow: {tracing: {enabled: false}}}}]}]\n"
    tenant = load(acme + more + rollout).tenants["acme"]
    principal = Principal("acme", "alice", None, 0.0, 9e9, claims={"sub": "alice"})

    def touched(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError("a decision reached outside")

    with monkeypatch.context() as patched:
        for place, name in (
            (socket, "socket"),
            (builtins, "open"),
            (os, "open"),
            (os, "stat"),
            (os, "urandom"),
            (time, "time"),
            (time, "monotonic"),
            (Path, "read_text"),
        ):
            patched.setattr(place, name, touched)
        grants = [decide(tenant, principal, {}, now=1.8e9) for _ in range(20)]
    assert all(grant == grants[0] for grant in grants)
