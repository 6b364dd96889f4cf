"""What a principal may have: rules in order, a user of the tenant's own, and in doubt no."""

import copy
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.contract import SessionWish
from service.errors import InvalidToken, PolicyDenied, Refusal, UserMismatch
from service.policy.decide import decide
from service.policy.tenant import Tenant
from service.principal import Principal
from service.session import Grant

NOW = 1_800_000_000.0
ADA = Principal("acme", "ada", "sid-1", NOW - 60, NOW + 3600, {"sub": "ada"})

Policy = Callable[..., Tenant]


def grant(tenant: Tenant, wishes: SessionWish | None = None, principal: Principal = ADA, **claims: Any) -> Grant:
    return decide(tenant, replace(principal, claims={**principal.claims, **claims}), wishes or {}, now=NOW)


def denial(
    tenant: Tenant, wishes: SessionWish | None = None, principal: Principal = ADA, **claims: Any
) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as denied:
        grant(tenant, wishes, principal, **claims)
    return denied.value


def state(**variables: Any) -> Any:
    return {"workflow": {"state_variables": variables}}


def session(**fields: Any) -> dict[str, Any]:
    return {"workflow": {"id": "wf_support"}, **fields}


def test_a_grant_is_the_whole_create_body(policy: Policy) -> None:
    granted = grant(policy(session=session(rate_limits={"max_requests_per_1_minute": 20})))
    assert granted.body == {
        "user": "acme:ada",
        "workflow": {"id": "wf_support"},
        "rate_limits": {"max_requests_per_1_minute": 20},
        "expires_after": {"anchor": "created_at", "seconds": 600},
    }
    assert (granted.tenant, granted.user, granted.seconds) == ("acme", "acme:ada", 600)


def test_computed_values_keep_their_type_or_become_text(policy: Policy) -> None:
    variables = {"plan": "${claims.plan}", "pro": '${claims.plan == "pro"}', "hi": "Hello ${claims.name}, ${claims.n}"}
    tenant = policy(session={"workflow": {"id": "wf_${claims.plan}", "state_variables": variables}})
    body = grant(tenant, plan="pro", name="Ada", n=5).body
    assert body["workflow"] == {
        "id": "wf_pro",
        "state_variables": {"plan": "pro", "pro": True, "hi": "Hello Ada, 5"},
    }


# --- rules ---


def test_rules_merge_in_order_over_the_session(policy: Policy) -> None:
    rules = [
        {"name": "a", "when": "true", "session": {"expires_after": {"seconds": 60}, **state(a=1, b=1)}},
        {"name": "b", "when": "claims.pro", "session": {"expires_after": {"seconds": 120}, **state(b="${claims.sub}")}},
        {"name": "c", "when": "!claims.pro", "session": {"expires_after": {"seconds": 1}}},
    ]
    tenant = policy(rules=rules)
    assert grant(tenant, pro=True).body["workflow"] == {"id": "wf_support", "state_variables": {"a": 1, "b": "ada"}}
    assert grant(tenant, pro=True).seconds == 120
    assert grant(tenant, pro=False).seconds == 1


def test_a_rule_may_replace_a_computed_value(policy: Policy) -> None:
    rules = [{"name": "a", "when": "true", "session": {"workflow": {"id": "wf_fixed"}}}]
    assert (
        grant(policy(session={"workflow": {"id": "${claims.sub}"}}, rules=rules)).body["workflow"]["id"] == "wf_fixed"
    )


def test_a_rule_denies_with_its_public_text(policy: Policy) -> None:
    rules = [
        {"name": "suspended", "when": "has(claims.suspended)", "deny": "Your account is suspended."},
        {"name": "all", "when": "true", "deny": "Nobody."},
    ]
    first, second = denial(policy(rules=rules), suspended=1), denial(policy(rules=rules))
    assert (first.detail, first.reason) == ("Your account is suspended.", "rule 'suspended' denies")
    assert second.detail == "Nobody."


@pytest.mark.parametrize(
    "sections",
    [
        {"rules": [{"name": "a", "when": "claims.plan == 'free'", "session": {}}]},
        {"rules": [{"name": "a", "when": "claims.sub", "session": {}}]},
        {"rules": [{"name": "a", "when": "claims.plan", "deny": "no"}]},
        {"session": {"workflow": {"id": "${claims.plan}"}}},
        {"session": {"workflow": {"id": "wf ${claims.plan}"}}},
        {"rules": [{"name": "a", "when": "true", "session": state(plan="${claims.plan}")}]},
        {"user": "claims.plan"},
        {"user": "claims.n"},
        {"user": "claims.empty"},
    ],
)
def test_an_expression_without_a_value_denies(policy: Policy, sections: dict[str, Any]) -> None:
    denied = denial(policy(**sections), n=5, empty="")
    assert denied.detail == PolicyDenied.public


@pytest.mark.parametrize(
    "field",
    [
        {"expires_after": {"seconds": "${claims.x}"}},
        {"rate_limits": {"max_requests_per_1_minute": "${claims.x}"}},
        {"chatkit_configuration": {"file_upload": {"enabled": "${claims.x}"}}},
        {"chatkit_configuration": {"file_upload": {"max_file_size": "${claims.x}"}}},
    ],
)
@pytest.mark.parametrize("claim", ["60", 0, 601.0, 1.0, -1, None, [1], "hunter2"])
def test_a_computed_value_of_a_wrong_type_or_range_denies(policy: Policy, field: dict[str, Any], claim: Any) -> None:
    assert "hunter2" not in str(denial(policy(session=session(**field)), x=claim))


def test_a_boolean_is_no_number_of_seconds(policy: Policy) -> None:
    tenant = policy(session=session(expires_after={"seconds": "${claims.x}"}))
    assert grant(tenant, x=1).seconds == 1
    denial(tenant, x=True)
    denial(tenant, principal=replace(ADA, ends_with_token=True), x=True)


def test_latest_is_no_version_even_if_computed(policy: Policy) -> None:
    denial(policy(session={"workflow": {"id": "wf", "version": "${claims.v}"}}), v="latest")


# --- the user ---


@pytest.mark.parametrize("user", ["ada", "acme:ada"])
def test_a_user_in_the_body_is_the_caller_under_either_name(policy: Policy, user: str) -> None:
    assert grant(policy(), {"user": user}).user == "acme:ada"


@pytest.mark.parametrize("user", ["bob", "acme:bob", "ADA", "ada ", "globex:ada"])
def test_a_user_in_the_body_who_is_not_the_caller_is_refused(policy: Policy, user: str) -> None:
    with pytest.raises(UserMismatch) as refused:
        grant(policy(client_may={"workflow.id": True}), {"user": user})
    assert refused.value.field == "user"


def test_a_tenant_maps_its_users_itself(policy: Policy) -> None:
    assert grant(policy(user='tenant + "/" + claims.org + "/" + claims.sub'), org="x").user == "acme/x/ada"


def test_a_pseudonym_is_the_same_every_time_and_another_in_every_tenant(policy: Policy) -> None:
    key = {"K": "k" * 32, "L": "l" * 32}
    tenant = policy(environ=key, user='"u"', pseudonymous={"key": {"env": "K"}})
    user = grant(tenant).user
    assert user == hmac.new(b"k" * 32, b"acme\0u", hashlib.sha256).hexdigest()
    assert grant(tenant, principal=replace(ADA, subject="bob")).body["user"] == user
    assert grant(replace(tenant, name="globex")).user != user
    assert grant(policy(environ=key, user='"u"', pseudonymous={"key": {"env": "L"}})).user != user
    assert grant(tenant, {"user": user}).user == user


@pytest.mark.parametrize(("length", "ok"), [(512, True), (513, False)])
def test_a_user_has_at_most_512_characters(policy: Policy, length: int, ok: bool) -> None:
    tenant = policy(user="claims.long")
    if ok:
        assert len(grant(tenant, long="é" * length).user) == length
    else:
        denial(tenant, long="é" * length)


def test_a_pseudonym_stands_for_a_user_of_any_length(policy: Policy) -> None:
    tenant = policy(environ={"K": "k" * 32}, user="claims.long", pseudonymous={"key": {"env": "K"}})
    assert len(grant(tenant, long="x" * 5000).user) == 64


@pytest.mark.parametrize("pseudonymous", [False, True])
@pytest.mark.parametrize("subject", ["\ud800", "a\udfffb"])
def test_a_subject_that_no_utf8_can_carry_is_refused(policy: Policy, subject: str, pseudonymous: bool) -> None:
    sections: dict[str, Any] = {"pseudonymous": {"key": {"env": "K"}}} if pseudonymous else {}
    with pytest.raises(Refusal):
        grant(policy(environ={"K": "k" * 32}, **sections), principal=replace(ADA, subject=subject), sub=subject)


@pytest.mark.parametrize(
    "section", [{"user": '"acme:" + claims.sub'}, {"session": {"workflow": {"id": "${claims.sub}"}}}]
)
def test_nobody_becomes_somebody_else_by_a_nul_in_the_name(policy: Policy, section: dict[str, Any]) -> None:
    denial(policy(**section), principal=replace(ADA, subject="ada\0x"), sub="ada\0x")


# --- the token's end ---


@pytest.mark.parametrize(("left", "seconds"), [(3600, 300), (300, 300), (299.9, 299), (1.0, 1), (1.9, 1)])
def test_a_session_may_end_with_its_token(policy: Policy, left: float, seconds: int) -> None:
    principal = replace(ADA, expires_at=NOW + left, ends_with_token=True)
    assert grant(policy(session=session(expires_after={"seconds": 300})), principal=principal).seconds == seconds


def test_the_default_lifetime_ends_with_the_token_too(policy: Policy) -> None:
    assert grant(policy(), principal=replace(ADA, expires_at=NOW + 10, ends_with_token=True)).seconds == 10
    assert grant(policy(), principal=replace(ADA, expires_at=NOW + 10)).seconds == 600


@pytest.mark.parametrize("left", [0.9, 0.0, -25.0])
def test_a_token_in_its_last_second_gives_no_session_that_ends_with_it(policy: Policy, left: float) -> None:
    with pytest.raises(InvalidToken):
        grant(policy(), principal=replace(ADA, expires_at=NOW + left, ends_with_token=True))


def test_a_wish_does_not_outlive_the_token(policy: Policy) -> None:
    tenant = policy(client_may={"expires_after.seconds": {"max": 600}})
    principal = replace(ADA, expires_at=NOW + 10, ends_with_token=True)
    assert grant(tenant, {"expires_after": {"anchor": "created_at", "seconds": 600}}, principal).seconds == 10


# --- purity ---


def test_deciding_changes_nothing_and_decides_the_same_again(policy: Policy) -> None:
    rules = [{"name": "a", "when": "true", "session": state(a="${claims.sub}")}]
    tenant = policy(rules=rules, client_may={"workflow.id": ["wf_b"], "workflow.state_variables.b": {"max": 5}})
    wishes: SessionWish = {"user": "ada", "workflow": {"id": "wf_b", "state_variables": {"b": 5}}}
    before, constants = copy.deepcopy(wishes), dict(tenant.session.constant)
    first = grant(tenant, wishes)
    first.body["workflow"]["state_variables"]["a"] = "changed"
    assert (wishes, dict(tenant.session.constant)) == (before, constants)
    assert grant(tenant, wishes).body["workflow"]["state_variables"] == {"a": "ada", "b": 5}
    assert grant(tenant).body["workflow"] == {"id": "wf_support", "state_variables": {"a": "ada"}}
