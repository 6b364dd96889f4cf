"""What a caller asks for: granted within the policy's bounds, refused by name outside them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import CREATE, LEAVES, SECONDS, SessionWish, dotted, flatten, unflatten
from service.errors import InvalidToken, PolicyDenied, UserMismatch
from service.policy.decide import decide
from service.policy.tenant import Tenant
from service.principal import Principal
from service.session import Grant

NOW = 1_800_000_000.0
ADA = Principal("acme", "ada", "sid-1", NOW - 60, NOW + 3600, {"sub": "ada"})
LIMIT = "rate_limits.max_requests_per_1_minute"

Policy = Callable[..., Tenant]


def grant(tenant: Tenant, wishes: SessionWish | None = None) -> Grant:
    return decide(tenant, ADA, wishes or {}, now=NOW)


def denial(tenant: Tenant, wishes: SessionWish) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as denied:
        grant(tenant, wishes)
    return denied.value


def requests(number: Any) -> Any:
    return {"rate_limits": {"max_requests_per_1_minute": number}}


def state(**variables: Any) -> Any:
    return {"workflow": {"state_variables": variables}}


def session(**fields: Any) -> dict[str, Any]:
    return {"workflow": {"id": "wf_support"}, **fields}


def test_a_wish_for_what_the_policy_gives_anyway_needs_no_permission(policy: Policy) -> None:
    tenant = policy(session=session(rate_limits={"max_requests_per_1_minute": 20}, expires_after={"seconds": 60}))
    wishes: Any = {
        "workflow": {"id": "wf_support"},
        "expires_after": {"anchor": "created_at", "seconds": 60},
        **requests(20),
    }
    assert grant(tenant, wishes).body == grant(tenant).body


BOUNDS: list[tuple[Any, list[Any], list[Any]]] = [
    (["a", "b"], ["a", "b"], ["c", "A", "", True, 1]),
    ([1, 2], [1, 2], [3, 1.0, True, "1"]),
    ([1.5, 2.0], [1.5, 2.0], [2, 1, "2.0"]),
    ([True], [True], [False, 1, 1.0, "true"]),
    ([False, 0], [False, 0], [0.0, "", True]),
    (True, [True, False], [1, 0, "true", 1.0]),
    ({"min": 2, "max": 5}, [2, 3, 2.5, 5.0], [1, 6, 5.1, True, "3"]),
    ({"max": 5}, [5, 0, -3], [6, 10**30, False, True]),
    ({"min": 0}, [0, 10**18], [-1, -0.5, False, "1"]),
    ({"max_length": 3}, ["", "abc", "äöü"], ["abcd", 123, True]),
]


@pytest.mark.parametrize(("bound", "within", "outside"), BOUNDS)
def test_a_wish_is_granted_within_its_bound_and_refused_outside(
    policy: Policy, bound: Any, within: list[Any], outside: list[Any]
) -> None:
    tenant = policy(client_may={"workflow.state_variables.x.y": bound})
    for wish in within:
        found = grant(tenant, state(**{"x.y": wish})).body["workflow"]["state_variables"]["x.y"]
        assert (type(found), found) == (type(wish), wish)
    for wish in outside:
        denied = denial(tenant, state(**{"x.y": wish}))
        assert denied.field == "workflow.state_variables.x.y"
        assert "workflow.state_variables.x.y" in denied.detail


def test_nan_is_in_no_range(policy: Policy) -> None:
    for bound in ({}, {"min": 0}, {"max": 9}):
        denial(policy(client_may={"workflow.state_variables.x": bound}), state(x=float("nan")))


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"workflow": {"id": "wf_other"}}, "workflow.id"),
        ({"workflow": {"version": "1"}}, "workflow.version"),
        (state(plan="pro"), "workflow.state_variables.plan"),
        (requests(21), LIMIT),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        (
            {"chatkit_configuration": {"file_upload": {"enabled": True}}},
            "chatkit_configuration.file_upload.enabled",
        ),
    ],
)
def test_what_the_policy_does_not_open_is_refused_by_name(policy: Policy, wishes: Any, field: str) -> None:
    denied = denial(policy(client_may={LIMIT: {"max": 20}}), wishes)
    assert denied.field == field


def test_a_wish_wins_over_rules_only_within_its_bound(policy: Policy) -> None:
    rules = [{"name": "a", "when": "true", "session": requests(7)}]
    tenant = policy(rules=rules, client_may={LIMIT: {"min": 1, "max": 20}})
    assert grant(tenant, requests(20)).body["rate_limits"] == {"max_requests_per_1_minute": 20}
    assert grant(tenant, requests(7)).body["rate_limits"] == {"max_requests_per_1_minute": 7}
    assert denial(tenant, requests(21)).field == LIMIT


def test_a_denial_wins_over_any_wish(policy: Policy) -> None:
    tenant = policy(rules=[{"name": "a", "when": "request.workflow.id == 'wf_sales'", "deny": "Closed."}],
                    client_may={"workflow.id": ["wf_sales"]})  # fmt: skip
    assert denial(tenant, {"workflow": {"id": "wf_sales"}}).detail == "Closed."


def test_policy_and_wishes_together_stay_within_the_contract(policy: Policy) -> None:
    tenant = policy(
        session={"workflow": {"id": "wf", "state_variables": {f"k{i}": 1 for i in range(64)}}},
        client_may={"workflow.state_variables.one_more": {"max_length": 5}},
    )
    assert len(grant(tenant).body["workflow"]["state_variables"]) == 64
    denial(tenant, state(one_more="x"))


OPEN: dict[str, Any] = {
    "session": {
        "workflow": {"id": "wf_${claims.plan}", "state_variables": {"plan": "${claims.plan}", "fixed": 1}},
        "expires_after": {"seconds": "${claims.seconds}"},
        "chatkit_configuration": {"file_upload": {"enabled": False, "max_file_size": "${claims.size}"}},
    },
    "user": "claims.user",
    "rules": [
        {"name": "pro", "when": 'claims.plan == "pro"', "session": requests(20)},
        {"name": "out", "when": 'claims.plan == "out"', "deny": "no"},
        {"name": "asked", "when": "has(request.workflow)", "session": state(asked="${claims.size}")},
    ],
    "client_may": {
        "workflow.id": ["wf_pro", "wf_sales", 5],
        "workflow.version": {"max_length": 9},
        "workflow.state_variables.free": {"min": -5, "max": 5},
        "workflow.state_variables.text": {"max_length": 5},
        "workflow.tracing.enabled": True,
        "expires_after.seconds": {"max": 10_000},
        LIMIT: {"min": -5, "max": 100},
        "chatkit_configuration.file_upload.max_files": [0, 1, 2.0, "3"],
        "chatkit_configuration.history.recent_threads": {},
    },
}
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-10, 700)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from(["", "pro", "wf_pro", "wf_sales", "latest", "created_at", "ada", "x" * 600, "\0", "\ud800"])
    | st.text(max_size=6)
)
VALUE = SCALAR | st.lists(SCALAR, max_size=2) | st.dictionaries(st.text(max_size=3), SCALAR, max_size=2)
NEAR: dict[str, list[Any]] = {
    "user": ["ada", "bob"],
    "workflow.id": ["wf_sales", "wf_pro", "wf_free", 5],
    "workflow.version": ["1", "latest", "0123456789"],
    "workflow.state_variables.free": [-5, 0, 5, 4.5, 6, True],
    "workflow.state_variables.text": ["", "12345", "123456"],
    "workflow.state_variables.plan": ["pro", "free"],
    "workflow.state_variables.fixed": [1, 1.0, True],
    "workflow.tracing.enabled": [True, False, 1],
    "expires_after.seconds": [1, 600, 601, 60.0],
    "expires_after.anchor": ["created_at", "now"],
    LIMIT: [1, 20, 100, 0, 101, True],
    "chatkit_configuration.file_upload.enabled": [False, True],
    "chatkit_configuration.file_upload.max_files": [0, 1, 2, 2.0, True],
    "chatkit_configuration.history.recent_threads": [1, 0, 2**40, 1.5, False],
}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    return unflatten({tuple(name.split(".")): value for name, value in flat.items()})


# The first of each is allowed and the likeliest, so that many are granted; and then anything at all, at any depth.
LIKELY = st.dictionaries(st.sampled_from(list(NEAR)), st.integers(0, 9), max_size=4).map(
    lambda flat: nested({name: (NEAR[name] + NEAR[name][:1] * 10)[index] for name, index in flat.items()})
)
WILD = st.dictionaries(st.sampled_from([dotted(path) for path in LEAVES]), VALUE, min_size=1, max_size=3).map(
    nested
) | st.dictionaries(st.sampled_from(["user", "workflow", "rate_limits", "expires_after"]) | st.text(max_size=3), VALUE)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "plan": st.sampled_from(["pro", "free", "out"]) | VALUE,
        "seconds": st.integers(1, 600) | VALUE,
        "size": st.integers(1, 512) | VALUE,
        "user": st.just("acme:ada") | VALUE,
    },
)
GOOD = st.fixed_dictionaries(
    {
        "plan": st.sampled_from(["pro", "free"]),
        "seconds": st.integers(1, 600),
        "size": st.integers(1, 512),
        "user": st.just("ada"),
    }
)


def test_whatever_is_asked_the_grant_is_valid_and_within_bounds(policy: Policy) -> None:
    tenant = policy(**OPEN)
    granted: list[Grant] = []

    def holds(wishes: Any, claims: dict[str, Any], left: float | None) -> None:
        principal = replace(ADA, claims=claims, ends_with_token=left is not None, expires_at=NOW + (left or 0))
        try:
            found = decide(tenant, principal, wishes, now=NOW)
        except (PolicyDenied, UserMismatch, InvalidToken):
            return
        granted.append(found)
        assert CREATE.validate_python(found.body) == found.body
        assert orjson.loads(orjson.dumps(found.body)) == found.body
        assert found.user == found.body["user"] == claims["user"]
        assert left is None or found.seconds <= left
        try:
            unasked = decide(tenant, principal, {"workflow": {}} if "workflow" in wishes else {}, now=NOW)
        except PolicyDenied:
            return  # the wish stands in for something that the policy can't compute
        ours = flatten(unasked.body)
        for path, value in flatten(found.body).items():
            same = path in ours and type(value) is type(ours[path]) and value == ours[path]
            bound = tenant.client_may.get(path)
            assert same or (bound is not None and bound.allows(value)) or (path == SECONDS and left is not None)

    fast = settings(max_examples=300, deadline=None, database=None, derandomize=True)
    fast(given(LIKELY, GOOD, st.none() | st.floats(0.5, 700))(holds))()
    assert sum("wf_sales" in str(each.body) for each in granted) > 2
    fast(given(WILD, GOOD | CLAIMS, st.none())(holds))()
