"""Visitors get what their own section says: a session, rules, bounds and quotas apart from the users'."""

from typing import Any

import pytest
from redis.asyncio import Redis

from service.upstream.authority.sessions import Authority
from unit.http.conftest import Open
from unit.http.house import WWW, Browser, Login, refused

USERS: dict[str, Any] = {
    "session": {
        "workflow": {"id": "wf_acme", "state_variables": {"tier": "user", "who": "${claims.sub}"}},
        "rate_limits": {"max_requests_per_1_minute": 50},
        "expires_after": {"seconds": 600},
    },
    "rules": [
        {
            "name": "pro",
            "when": 'claims.plan == "pro"',
            "session": {"rate_limits": {"max_requests_per_1_minute": 500}},
        },
        {"name": "banned", "when": 'claims.plan == "banned"', "deny": "Your plan is banned"},
    ],
    "client_may": {"rate_limits.max_requests_per_1_minute": {"min": 1, "max": 900}, "workflow.id": ["wf_sales"]},
    "expose_state_variables": True,
}
VISITORS: dict[str, Any] = {
    "origins": [WWW],
    "session": {
        "workflow": {"id": "wf_guest", "state_variables": {"tier": "guest"}},
        "rate_limits": {"max_requests_per_1_minute": 3},
    },
    "client_may": {"workflow.id": ["wf_guest", "wf_tour"]},
}


def minutes(answer: Any) -> int:
    """How many requests a minute the session has."""
    assert answer.status_code == 200, answer.text
    return int(answer.json()["rate_limits"]["max_requests_per_1_minute"])


async def test_a_visitors_session_is_the_tenants_with_its_own_over_it(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant(**USERS, visitors=VISITORS)))
    session = (await browser.mint()).json()
    assert session["workflow"]["id"] == "wf_guest"
    assert session["workflow"]["state_variables"]["tier"] == "guest"
    assert session["workflow"]["state_variables"]["who"].startswith("visitor:")
    assert session["rate_limits"]["max_requests_per_1_minute"] == 3


async def test_users_rules_neither_break_nor_reach_visitors(house: Open, login: Login) -> None:
    app = house(login.tenant(**USERS, visitors=VISITORS))
    assert minutes(await Browser(app).mint()) == 3
    assert minutes(await Browser(app, token=login.token(plan="pro")).mint()) == 500
    assert minutes(await Browser(app, token=login.token(plan="free")).mint()) == 50
    assert refused(await Browser(app, token=login.token(plan="banned")).mint()) == (403, "policy_denied")


async def test_visitors_rules_do_not_reach_users(house: Open, login: Login) -> None:
    closed = {**VISITORS, "rules": [{"name": "closed", "when": "claims.visitor", "deny": "Please sign in"}]}
    app = house(login.tenant(visitors=closed))
    answer = await Browser(app).mint()
    assert refused(answer) == (403, "policy_denied")
    assert answer.json()["detail"] == "Please sign in"
    assert "set-cookie" not in answer.headers
    assert (await Browser(app, token=login.token()).mint()).status_code == 200


async def test_a_claim_that_only_users_have_denies_a_visitor(house: Open, login: Login) -> None:
    """In doubt, no: what the users' session computes from a plan has no value for one who has none."""
    computed = {"workflow": {"id": "wf_acme", "state_variables": {"plan": "${claims.plan}"}}}
    app = house(login.tenant(session=computed, visitors={"origins": [WWW]}))
    assert refused(await Browser(app).mint()) == (403, "policy_denied")
    own = {"workflow": {"state_variables": {"plan": "none"}}}
    app = house(login.tenant(session=computed, visitors={"origins": [WWW], "session": own}))
    assert (await Browser(app).mint()).status_code == 200


async def test_a_users_mapping_does_not_reach_visitors(house: Open, login: Login) -> None:
    app = house(login.tenant(user='"u:" + claims.email', visitors=VISITORS))
    assert (await Browser(app).user()).startswith("acme:visitor:")
    assert await Browser(app, token=login.token(email="a@b.example")).user() == "u:a@b.example"


async def test_a_visitor_chooses_within_its_own_bounds(house: Open, login: Login) -> None:
    app = house(login.tenant(**USERS, visitors=VISITORS))
    visitor, user = Browser(app), Browser(app, token=login.token(plan="free"))
    assert (await visitor.mint(workflow={"id": "wf_tour"})).json()["workflow"]["id"] == "wf_tour"
    assert refused(await visitor.mint(workflow={"id": "wf_sales"})) == (403, "policy_denied")
    assert refused(await visitor.mint(rate_limits={"max_requests_per_1_minute": 4})) == (403, "policy_denied")
    assert minutes(await user.mint(rate_limits={"max_requests_per_1_minute": 4})) == 4
    assert refused(await user.mint(workflow={"id": "wf_tour"})) == (403, "policy_denied")


async def test_without_bounds_of_its_own_a_visitor_chooses_nothing(house: Open, login: Login) -> None:
    app = house(login.tenant(**USERS, visitors={"origins": [WWW]}))
    assert refused(await Browser(app).mint(rate_limits={"max_requests_per_1_minute": 4})) == (403, "policy_denied")


async def test_a_visitor_names_no_user_but_itself(house: Open, login: Login) -> None:
    browser = Browser(house(login.tenant(visitors=VISITORS)))
    user = await browser.user()
    assert (await browser.mint(user=user)).status_code == 200
    assert refused(await browser.mint(user="acme:alice")) == (403, "user_mismatch")
    assert refused(await browser.mint(user=await Browser(browser.app).user())) == (403, "user_mismatch")


async def test_mints_are_counted_per_visitor(house: Open, login: Login) -> None:
    quota = {"mints": ["2/hour"]}
    app = house(login.tenant(visitors={**VISITORS, "quota": quota}, quota={"mints": ["9/hour"]}))
    one, other = Browser(app), Browser(app)
    answers = [await one.mint() for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"mint";q=2;w=3600'
    assert refused(answers[2]) == (429, "rate_limited")
    assert 1790 <= int(answers[2].headers["retry-after"]) <= 1800
    assert (await other.mint()).status_code == 200
    answer = await Browser(app, token=login.token()).mint()
    assert answer.headers["ratelimit-policy"] == '"mint";q=9;w=3600'


@pytest.mark.parametrize("excess", ["refuse", "cancel_oldest"])
async def test_live_sessions_are_counted_per_visitor(house: Open, login: Login, excess: str) -> None:
    quota = {"live_sessions": {"max": 1, "excess": excess}}
    app = house(login.tenant(visitors={**VISITORS, "quota": quota}))
    one, other = Browser(app), Browser(app)
    assert [(await each.mint()).status_code for each in (one, other)] == [200, 200]
    answer = await one.mint()
    if excess == "refuse":
        assert refused(answer) == (429, "too_many_live_sessions")
    else:
        assert await one.listed() == [answer.json()["id"]]
    assert len(await other.listed()) == 1


async def test_without_a_quota_of_its_own_a_visitor_has_not_the_users(house: Open, login: Login) -> None:
    app = house(login.tenant(visitors={"origins": [WWW]}, quota={"mints": ["1/hour"]}))
    browser = Browser(app)
    assert [(await browser.mint()).status_code for _ in range(2)] == [200, 200]


async def test_upstream_is_told_a_pseudonym_of_a_visitor_too(house: Open, login: Login, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("p" * 32)
    tenant = login.tenant(pseudonymous={"key": {"file": str(tmp_path / "key")}}, visitors=VISITORS)
    browser = Browser(house(tenant))
    user = await browser.user()
    assert len(user) == 64
    assert user == await browser.user()
    assert user != await Browser(browser.app).user()


async def test_what_visitors_mint_is_live_upstream(house: Open, login: Login, redis: Redis) -> None:
    answer = await Browser(house(login.tenant(visitors=VISITORS))).mint()
    session = await Authority(redis).find(answer.json()["id"])
    assert session
    assert session["status"] == "active"
    assert session["user"] == answer.json()["user"]
