"""`check` runs the operators' own tests and warns of what is hardly meant."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.policy.cases import run_cases
from service.policy.doubts import doubts
from service.policy.tenant import Policies

IDENTITY = "identity: [{issuer: 'https://login.example/', audience: app, algorithms: [ES256]}]\n"


def tenant(name: str, more: str = "") -> str:
    return f"tenant: {name}\n{IDENTITY}upstream: {{kind: authority}}\nsession: {{workflow: {{id: wf_1}}}}\n{more}"


def failures(load: Callable[..., Policies], tmp_path: Path, tests: str, more: str = "") -> list[str]:
    policies = load({"acme": tenant("acme", more)})
    (tmp_path / "tenants" / "acme.test.yaml").write_text(tests)
    _, found = run_cases(tmp_path, policies.tenants, now=time.time())
    return [str(each).removeprefix(f"{tmp_path}/") for each in found]


def test_a_passing_test_says_nothing(load: Callable[..., Policies], tmp_path: Path) -> None:
    tests = "tests:\n  - {name: a, claims: {sub: x}, grant: {workflow: {id: wf_1}, user: 'acme:x'}}\n"
    assert failures(load, tmp_path, tests) == []


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (
            "{name: a, claims: {sub: x}, grant: {workflow: {id: wf_2}}}",
            "workflow.id: expected 'wf_2', got 'wf_1', set by tenant",
        ),
        (
            "{name: a, claims: {sub: x}, grant: {workflow: {version: '1'}}}",
            "workflow.version: expected '1', is not set",
        ),
        ("{name: a, claims: {sub: x}, deny: policy_denied}", "expected policy_denied, got granted"),
        (
            "{name: a, claims: {sub: x, bad: true}, grant: {}}",
            "expected a grant, got policy_denied (rule 'bad' denies)",
        ),
        ("{name: a, claims: {}, grant: {}}", "the claims name no `sub`"),
        ("{name: a, claims: {sub: x}, visitor: true, grant: {}}", "has no visitors"),
        ("{name: a, claims: {sub: x}, request: {wrkflow: {}}, grant: {}}", "request: wrkflow: Extra inputs"),
        ("{name: a, claims: {sub: x}}", "one of `grant` or `deny`"),
        ("{name: a, claims: {sub: x}, grant: {}, dney: x}", "Extra inputs are not permitted"),
        ("{name: a, claims: {sub: x}, grant: {expires_after: {seconds: true}}}", "expected True, got 600"),
    ],
)
def test_a_failing_test_says_what_is_other_and_where(
    load: Callable[..., Policies], tmp_path: Path, test: str, told: str
) -> None:
    rule = "rules: [{name: bad, when: has(claims.bad), deny: No.}]\n"
    (failure,) = failures(load, tmp_path, f"tests:\n  - {test}\n", rule)
    assert failure.startswith("tenants/acme.test.yaml:2:")
    assert told in failure


def test_a_test_file_without_a_tenant_is_told(load: Callable[..., Policies], tmp_path: Path) -> None:
    policies = load({"acme": tenant("acme")})
    (tmp_path / "tenants" / "acmee.test.yaml").write_text("tests:\n  - {name: a, claims: {sub: x}, grant: {}}\n")
    _, (failure,) = run_cases(tmp_path, policies.tenants, now=time.time())
    assert "there is no tenant of this name" in str(failure)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("rules: [{name: a, when: 'false', deny: No.}]", "rule 'a' can never hold: `false` is false for everybody"),
        ('rules: [{name: a, when: tenant == "globex", deny: No.}]', "rule 'a' can never hold"),
        (
            "rules: [{name: a, when: claims.x, deny: No.}, {name: b, when: claims.x, session: {}}]",
            "rule 'b' can never hold: rule 'a' denies first",
        ),
        ("rules: [{name: a, when: 'true', deny: No.}, {name: b, when: claims.x, deny: No.}]", "rule 'a' denies first"),
        ("client_may: {expires_after.seconds: {max: 900}}", "wider than ChatKit's range: 900"),
        ("client_may: {expires_after.seconds: {min: 1}}", "without a max it allows more than 600"),
        ("client_may: {workflow.version: [latest, '2']}", "latest is refused upstream"),
        ("client_may: {rate_limits.max_requests_per_1_minute: {min: 0, max: 5}}", "0.0 is refused upstream"),
        ("client_may: {rate_limits.max_requests_per_1_minute: {min: 9, max: 5}}", "allows nothing: min is over max"),
    ],
)
def test_a_doubt_is_told(load: Callable[..., Policies], more: str, told: str) -> None:
    found = doubts(load({"acme": tenant("acme", more + "\n")}).tenants)
    assert any(each.startswith("acme: ") and told in each for each in found), found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("claims.sub", "claims.sub"),
        ("claims.sub", "claims.email"),
        ('"x:" + claims.sub', '"x:" + claims.oid'),
        ("tenant + claims.sub", "tenant + claims.sub"),
    ],
)
def test_tenants_that_would_share_a_user_are_told(load: Callable[..., Policies], one: str, other: str) -> None:
    files = {"acme": tenant("acme", f"user: '{one}'\n"), "acme1": tenant("acme1", f"user: '{other}'\n")}
    (told,) = doubts(load(files).tenants)
    assert told.startswith("acme, acme1: a caller of each can be one ChatKit user")


def test_two_keys_of_one_project_share_their_users(load: Callable[..., Policies]) -> None:
    def keyed(name: str) -> str:
        upstream = f"upstream: {{kind: openai, project: p, api_key: {{env: {name.upper()}}}}}\nuser: claims.sub"
        return tenant(name).replace("upstream: {kind: authority}", upstream)

    environ = {"ACME": "sk-1", "GLOBEX": "sk-2"}
    (told,) = doubts(load({"acme": keyed("acme"), "globex": keyed("globex")}, environ=environ).tenants)
    assert told.startswith("acme, globex: ")


def test_one_user_for_everybody_is_told(load: Callable[..., Policies]) -> None:
    (told,) = doubts(load({"acme": tenant("acme", "user: '\"everyone\"'\n")}).tenants)
    assert told == "acme: every caller is one ChatKit user; let `user` depend on a claim"


def test_nothing_is_told_of_what_is_meant(load: Callable[..., Policies]) -> None:
    more = """\
user: 'tenant + "/" + claims.email'
rules:
  - {name: a, when: claims.x, deny: No.}
  - {name: b, when: has(claims.y), session: {}}
client_may:
  expires_after.seconds: {min: 60, max: 600}
  workflow.id: [wf_1, wf_2]
  workflow.state_variables.lang: {max_length: 5}
"""
    assert doubts(load({"acme": tenant("acme", more), "globex": tenant("globex", more)}).tenants) == []
