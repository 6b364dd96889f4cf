"""Explain is the decision itself, told: every value with the layer that set it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from service.contract import WISH
from service.policy.explain import as_table, explain
from service.policy.tenant import Policies, Tenant

FILES = {
    "templates/base": """\
session:
  expires_after: {seconds: 300}
  rate_limits: {max_requests_per_1_minute: 5}
""",
    "acme": """\
tenant: acme
extends: base
identity:
  - issuer: https://login.example/
    audience: app
    algorithms: [ES256]
    session_ends_with_token: true
upstream: {kind: authority}
session:
  workflow: {id: wf_support, state_variables: {plan: "${claims.plan}"}}
  rate_limits: {max_requests_per_1_minute: 7}
rules:
  - name: pro
    when: claims.plan == "pro"
    session: {chatkit_configuration: {file_upload: {enabled: true}}}
  - name: gone
    when: claims.plan == "gone"
    deny: Your plan has ended.
rollout:
  - {name: everybody, split: [{percent: 100, session: {workflow: {version: "2"}}}]}
client_may:
  workflow.id: [wf_support, wf_sales]
visitors:
  origins: ["https://www.example.com"]
  session: {workflow: {state_variables: {plan: none}}}
""",
}


@pytest.fixture
def acme(load: Callable[..., Policies]) -> Tenant:
    return load(FILES).tenants["acme"]


def set_by(tenant: Tenant, claims: dict[str, Any], wishes: Any = None, **options: Any) -> dict[str, str]:
    told = explain(tenant, claims, WISH.validate_python(wishes or {}), **options)
    return {field.field: field.set_by for field in told.fields}


def test_every_layer_is_named(acme: Tenant) -> None:
    wish = {"workflow": {"id": "wf_sales"}}
    assert set_by(acme, {"sub": "alice", "plan": "pro", "exp": time.time() + 100}, wish) == {
        "user": "the user mapping",
        "workflow.id": "the caller's wish",
        "workflow.version": "rollout 'everybody'",
        "workflow.state_variables.plan": "tenant",
        "expires_after.anchor": "ChatKit",
        "expires_after.seconds": "the token's expiry",
        "rate_limits.max_requests_per_1_minute": "tenant",
        "chatkit_configuration.file_upload.enabled": "rule 'pro'",
    }


def test_a_template_is_named_where_nobody_overrides_it(acme: Tenant) -> None:
    assert set_by(acme, {"sub": "alice", "plan": "free"})["expires_after.seconds"] == "template base"


def test_a_wish_for_what_is_given_anyway_sets_nothing(acme: Tenant) -> None:
    wish = {"workflow": {"id": "wf_support"}}
    assert set_by(acme, {"sub": "alice", "plan": "free"}, wish)["workflow.id"] == "tenant"


def test_a_denial_names_its_rule_and_what_the_caller_reads(acme: Tenant) -> None:
    told = explain(acme, {"sub": "alice", "plan": "gone"}, {})
    assert (told.granted, told.code, told.reason) == (False, "policy_denied", "rule 'gone' denies")
    assert told.public == "Your plan has ended."
    assert told.steps == (("rule 'pro'", "does not hold"), ("rule 'gone'", "holds"))


def test_a_visitor_is_decided_by_the_visitors_policy(acme: Tenant) -> None:
    layers = set_by(acme, {}, visitor=True)
    assert layers["workflow.state_variables.plan"] == "visitors"
    assert "workflow.version" not in layers


def test_a_wish_outside_names_the_field(acme: Tenant) -> None:
    told = explain(acme, {"sub": "a", "plan": "free"}, {"workflow": {"id": "wf_other"}})
    assert told.reason == "the wish for workflow.id is outside client_may"


def test_the_table_and_the_json_say_the_same(acme: Tenant) -> None:
    told = explain(acme, {"sub": "alice", "plan": "pro"}, {})
    table, told_json = as_table(told), told.as_json()
    for field in told_json["fields"]:
        assert field["field"] in table
        assert field["set_by"] in table
    assert told_json["body"]["workflow"]["version"] == "2"


def test_it_is_the_entry_that_fits_that_is_explained(load: Callable[..., Policies]) -> None:
    second = """\
  - issuer: https://login.example/
    audience: app2
    algorithms: [ES256]
    subject: claims.oid
    match: claims.org == "acme"
"""
    files = {**FILES, "acme": FILES["acme"].replace("upstream:", f"{second}upstream:")}
    tenant = load(files).tenants["acme"]
    claims = {"sub": "S", "oid": "O", "aud": ["x", "app2"], "org": "acme", "plan": "free"}
    assert explain(tenant, claims, {}).user == "acme:O"
    for other in (
        {"org": "globex"},
        {"aud": "app3"},
        {"aud": [["app2"]]},
        {"aud": 5},
        {"iss": "https://other.example/"},
    ):
        with pytest.raises(ValueError, match="fit no identity entry"):
            explain(tenant, {**claims, **other}, {})


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": 1},
        {"sub": ""},
        {"sub": "visitor:x"},
        {"sub": "a", "exp": "soon"},
        {"sub": "a", "exp": 1},
        {"sub": "a", "exp": float("inf")},
    ],
)
def test_claims_that_can_be_nobodys_are_refused(acme: Tenant, claims: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sub|exp|subject"):
        explain(acme, claims, {})
