"""A rollout's share is right, and growing it moves nobody back."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.policy.decide import decide
from service.policy.tenant import Body, Rollout, Tenant, Variant
from service.session import Grant
from unit.policy.test_decide import ADA, NOW

USERS = [f"user-{number}" for number in range(100_000)]


def rollout(*shares: float, name: str = "v2") -> Rollout:
    versions = [Body({("workflow", "version"): str(number)}, {}, {}) for number in range(len(shares))]
    return Rollout(name, tuple(Variant(share, body) for share, body in zip(shares, versions, strict=True)))


def members(it: Rollout, tenant: str = "acme", variant: int = 0) -> set[str]:
    return {user for user in USERS if it.variant_of(tenant, user) is it.split[variant]}


def test_ten_then_fifty_percent_keeps_everybody_in() -> None:
    few, many = members(rollout(10)), members(rollout(50))
    assert abs(len(few) / len(USERS) - 0.10) < 0.01
    assert abs(len(many) / len(USERS) - 0.50) < 0.01
    assert few <= many


def test_both_of_two_variants_grow_without_moving_anyone() -> None:
    before, after = rollout(10, 10), rollout(20, 40)
    assert members(before) <= members(after)
    assert members(before, variant=1) <= members(after, variant=1)
    assert abs(len(members(after, variant=1)) / len(USERS) - 0.40) < 0.01
    assert not members(after) & members(after, variant=1)


def test_two_variants_that_meet_cover_everybody() -> None:
    both = rollout(60, 40)
    assert members(both) | members(both, variant=1) == set(USERS)


def test_rollouts_and_tenants_draw_apart() -> None:
    base = members(rollout(50))
    for other in (members(rollout(50, name="v3")), members(rollout(50), tenant="globex")):
        assert abs(len(base & other) / len(USERS) - 0.25) < 0.01


def test_nobody_and_everybody() -> None:
    assert members(rollout(100)) == set(USERS)
    assert len(members(rollout(0.001))) < 20


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{name: a, split: [{percent: 60, session: {}}, {percent: 41, session: {}}]}", "add up to 101 %"),
        ("{name: a, split: [{percent: 0, session: {}}]}", "greater than 0"),
        ("{name: a, split: []}", "at least 1 item"),
        (f"{{name: a, split: [{', '.join(['{percent: 1, session: {}}'] * 3)}]}}", "at most 2 items"),
        ("{name: a, split: [{percent: 1, session: {workflow: {version: latest}}}]}", "'latest' is not"),
    ],
)
def test_an_impossible_rollout_is_refused(
    acme: str, mistakes: Callable[..., list[str]], written: str, message: str
) -> None:
    (mistake,) = mistakes(f"{acme}rollout:\n  - {written}\n")
    assert mistake.startswith("tenants/acme.yaml:12:")
    assert message in mistake


def test_two_rollouts_of_one_name_are_refused(acme: str, mistakes: Callable[..., list[str]]) -> None:
    one = "  - {name: a, split: [{percent: 1, session: {}}]}\n"
    (mistake,) = mistakes(f"{acme}rollout:\n{one}{one}")
    assert "there is a rollout 'a' already" in mistake
    assert mistake.startswith("tenants/acme.yaml:13:")


HOSTED = {"kind": "openai", "api_key": {"env": "KEY"}, "base_url": "https://hosted.example/v1"}
SHARE = [{"name": "self-hosted", "split": [{"percent": 40, "upstream": {"kind": "authority"}}]}]


def test_a_share_of_the_users_gets_sessions_from_another_upstream(policy: Callable[..., Tenant]) -> None:
    tenant = policy(environ={"KEY": "sk-1"}, upstream=HOSTED, rollout=SHARE)
    assert [account.kind for account in tenant.accounts] == ["openai", "authority"]

    def granted(user: str) -> Grant:
        return decide(tenant, replace(ADA, subject=user, claims={"sub": user}), {}, now=NOW)

    kinds = {user: granted(user).account.kind for user in USERS[:2000]}
    assert abs(sum(kind == "authority" for kind in kinds.values()) / 2000 - 0.4) < 0.05
    assert kinds == {user: granted(user).account.kind for user in USERS[:2000]}, "who is in stays in"
    assert {granted(user).body["workflow"]["id"] for user in USERS[:100]} == {"wf_support"}, "what they get is the same"


def test_a_share_that_gets_nothing_else_is_refused(acme: str, mistakes: Callable[..., list[str]]) -> None:
    (mistake,) = mistakes(f"{acme}rollout:\n  - {{name: a, split: [{{percent: 1}}]}}\n")
    assert "another `session`, another `upstream`, or both" in mistake


def test_what_is_wrong_with_the_other_upstream_is_told_with_its_place(
    acme: str, mistakes: Callable[..., list[str]]
) -> None:
    split = "[{percent: 1, upstream: {kind: openai, api_key: {env: K}, base_url: 'http://far.example'}}]"
    (mistake,) = mistakes(f"{acme}rollout:\n  - {{name: a, split: {split}}}\n", environ={"K": "sk-1"})
    assert mistake.startswith("tenants/acme.yaml:12:")
    assert "use https://" in mistake
