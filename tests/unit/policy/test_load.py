"""From files to policies: how layers merge, and where each mistake is reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.contract import dotted
from service.policy.tenant import Policies
from service.session import Window

Load = Callable[..., Policies]
Mistakes = Callable[..., list[str]]

NO_SESSION = """\
tenant: acme
extends: base
identity: [{issuer: "https://login.example/", audience: app, algorithms: [ES256]}]
upstream: {kind: authority}
"""


def constants(policies: Policies) -> dict[str, Any]:
    return {dotted(path): value for path, value in policies.tenants["acme"].session.constant.items()}


def test_the_smallest_file_loads(load: Load, acme: str) -> None:
    policies = load(acme)
    tenant = policies.tenants["acme"]
    assert constants(policies) == {"workflow.id": "wf_support"}
    assert (tenant.limits.mints, tenant.limits.live, [*tenant.rules], tenant.client_may) == ((), None, [], {})
    assert policies.trusts == {"https://login.example/": tenant.trusts}


def test_quotas_are_windows_and_slots(load: Load, acme: str) -> None:
    limits = (
        load(acme + "quota: {mints: [10/minute, 100/day], live_sessions: {max: 5, excess: cancel_oldest}}")
        .tenants["acme"]
        .limits
    )
    assert limits.mints == (Window(10, 60), Window(100, 86_400))
    assert (limits.live, limits.excess) == (5, "cancel_oldest")


# --- layers ---


def test_maps_merge_while_lists_and_scalars_replace(load: Load) -> None:
    policies = load(
        {
            "templates/root": "session: {expires_after: {seconds: 6}, workflow: {version: a, state_variables: {a: 1}}}"
            "\nquota: {mints: [1/minute, 2/hour], live_sessions: {max: 1, excess: cancel_oldest}}\n"
            "client_may: {workflow.id: [wf_a, wf_b]}\n",
            "templates/base": "extends: root\nsession: {workflow: {id: wf_base, version: b}}\n"
            "quota: {live_sessions: {max: 2}}\n",
            "acme": NO_SESSION + "session: {workflow: {state_variables: {b: 2}}}\nquota: {mints: [3/day]}\n"
            "client_may: {workflow.id: [wf_c]}\n",
        }
    )
    tenant = policies.tenants["acme"]
    assert constants(policies) == {
        "expires_after.seconds": 6,
        "workflow.id": "wf_base",
        "workflow.version": "b",
        "workflow.state_variables.a": 1,
        "workflow.state_variables.b": 2,
    }
    assert tenant.limits.mints == (Window(3, 86_400),)
    assert (tenant.limits.live, tenant.limits.excess) == (2, "cancel_oldest")
    assert tenant.client_may["workflow", "id"].choices == ("wf_c",)


def test_tenants_of_one_template_do_not_touch_each_other(load: Load) -> None:
    policies = load(
        {
            "templates/base": "session: {workflow: {id: wf, state_variables: {shared: 1}}}\n",
            "acme": NO_SESSION + "session: {workflow: {state_variables: {own: 1}}}\n",
            "globex": NO_SESSION.replace("acme", "globex"),
        }
    )
    assert "workflow.state_variables.own" in constants(policies)
    assert ("workflow", "state_variables", "own") not in policies.tenants["globex"].session.constant


@pytest.mark.parametrize(
    ("templates", "said"),
    [
        (
            {"standard": "quota: {}"},
            "tenants/acme.yaml:11:1: there is no template 'standart'; did you mean 'standard'?",
        ),
        ({"other": "quota: {}"}, "tenants/acme.yaml:11:1: there is no template 'standart'; there are: other"),
        ({}, "tenants/acme.yaml:11:1: there is no template 'standart'; there are: none"),
    ],
)
def test_a_missing_template_is_told_with_a_hint(
    mistakes: Mistakes, acme: str, templates: dict[str, str], said: str
) -> None:
    files = {f"templates/{name}": text for name, text in templates.items()}
    assert mistakes({**files, "acme": acme + "extends: standart\n"}) == [said]


@pytest.mark.parametrize("wrong", ["[base]", "{a: b}", "5", "../tenants/acme", "''"])
def test_a_template_is_named_by_its_plain_name(mistakes: Mistakes, acme: str, wrong: str) -> None:
    (said,) = mistakes({"templates/base": "quota: {}", "acme": acme + f"extends: {wrong}\n"})
    assert said.startswith("tenants/acme.yaml:11:1: there is no template")


def test_templates_that_extend_each_other_are_told(mistakes: Mistakes, acme: str) -> None:
    files = {"templates/a": "quota: {}\nextends: b\n", "templates/b": "extends: a\n", "acme": acme + "extends: a\n"}
    assert mistakes(files) == ["templates/b.yaml:1:1: extends itself: acme → a → b → a"]


def test_a_template_that_extends_itself_is_told(mistakes: Mistakes, acme: str) -> None:
    (said,) = mistakes({"templates/a": "extends: a\n", "acme": acme + "extends: a\n"})
    assert said.startswith("templates/a.yaml:1:1: extends itself")


def test_a_broken_template_is_one_mistake_and_no_missing_template(mistakes: Mistakes) -> None:
    files = {"templates/base": "session:\n  workflow: {id: wf\n", "acme": NO_SESSION}
    assert [said.split(": ")[0] for said in mistakes(files)] == ["templates/base.yaml:3:1"]


# --- places ---


def test_a_mistake_in_the_template_has_its_place_in_the_template(mistakes: Mistakes) -> None:
    template = "# ours\nsession:\n  workflow: {id: wf}\n  expires_after:\n    seconds: 900\n"
    assert mistakes({"templates/base": template, "acme": NO_SESSION}) == [
        "templates/base.yaml:5:5: `seconds`: should be less than or equal to 600"
    ]


def test_what_the_tenant_wrote_over_the_template_has_its_place_in_the_tenant(mistakes: Mistakes) -> None:
    files = {
        "templates/base": "session: {workflow: {id: wf}, expires_after: {seconds: 60}}\n",
        "acme": NO_SESSION + "session:\n  expires_after:\n    seconds: 900\n",
    }
    assert mistakes(files)[0].startswith("tenants/acme.yaml:7:5: `seconds`")


def test_a_replaced_list_leaves_no_places_of_the_template_behind(mistakes: Mistakes, acme: str) -> None:
    files = {
        "templates/base": "rules: [{name: a, when: 'true', deny: no}]\n",
        "acme": acme + "extends: base\nrules:\n  - name: b\n    deny: no\n",
    }
    assert mistakes(files) == ["tenants/acme.yaml:13:5: `when` is missing"]


def test_one_run_tells_every_mistake_in_every_file(mistakes: Mistakes, acme: str) -> None:
    said = mistakes(
        {
            "broken": "tenant: [\n",
            "acme": acme + "colour: red\nrules: [{name: a, when: 'true'}]\n",
            "globex": acme.replace("acme", "globex").replace("wf_support", "''")
            + "  expires_after: {seconds: 900}\nuser: '1'\n",
        }
    )
    assert [each.split(" ")[0] for each in said] == [
        "tenants/acme.yaml:11:1:",
        "tenants/acme.yaml:12:9:",
        "tenants/broken.yaml:2:1:",
        "tenants/globex.yaml:10:5:",
        "tenants/globex.yaml:11:19:",
        "tenants/globex.yaml:12:1:",
    ]


def test_one_run_tells_mistakes_of_shape_and_of_content(mistakes: Mistakes, acme: str) -> None:
    said = mistakes(acme + "  expires_after: {seconds: 900}\ncolour: red\n")
    assert [each.split(" ")[0] for each in said] == ["tenants/acme.yaml:11:19:", "tenants/acme.yaml:12:1:"]


@pytest.mark.parametrize(
    ("addition", "where", "said"),
    [
        ("colour: red", "11:1", "unknown key `colour`"),
        ("qouta: {}", "11:1", "unknown key `qouta`; did you mean `quota`?"),
        ("quota: {live_sessions: {max: 1, exces: refuse}}", "11:33", "`exces`; did you mean `excess`?"),
        ("rules: [{nme: a, when: 'true', deny: no}]", "11:10", "`nme`; did you mean `name`?"),
        ("quota: {mints: [10/minutes]}", "11:17", "10/minute; second, minute, hour, day"),
        ("quota: {mints: [0/minute]}", "11:17", ""),
        ("quota: {live_sessions: {max: 0}}", "11:25", "`max`: should be greater than or equal to 1"),
        ("rules: [{name: a, when: 'true'}]", "11:9", "a rule has one of `session` or `deny`"),
        ("rules: [{name: a, when: 'true', deny: no, session: {}}]", "11:9", "one of `session` or `deny`"),
        ("rules: [{name: a, when: '1', deny: no}]", "11:19", "gives int where bool is needed"),
        ("user: claims.sub +", "11:1", "is not a valid expression"),
        ("user: '1'", "11:1", "gives int where string is needed"),
        ("enabled: 1", "11:1", "`enabled`: should be true or false"),
        ("client_may: {workflow.ids: [a]}", "11:14", "did you mean `workflow.id`?"),
        ("client_may: {user: [a]}", "11:14", "unknown field `user`"),
        ("client_may: {expires_after.anchor: [created_at]}", "11:14", "unknown field"),
        ("client_may: {workflow.id: []}", "11:14", "workflow.id"),
        ("client_may: {workflow.tracing.enabled: false}", "11:14", "to forbid it, leave it out"),
        ("client_may: {workflow.tracing.enabled: 1}", "11:14", "true or false"),
        ("rollout: [{name: a, split: [{percent: true, session: {}}]}]", "11:30", "number"),
        ("client_may: {expires_after.seconds: {max: true}}", "11:38", "`max`: should be a valid number"),
        ("client_may: {expires_after.seconds: {maxx: 5}}", "11:38", "`maxx`; did you mean `max`?"),
        ("pseudonymous: {key: {env: A, file: b}}", "11:16", "one of {env: NAME} or {file: PATH}"),
    ],
)
def test_a_mistake_has_its_place_and_says_what_would_be_right(
    mistakes: Mistakes, acme: str, addition: str, where: str, said: str
) -> None:
    found = mistakes(acme + addition + "\n")
    assert any(each.startswith(f"tenants/acme.yaml:{where}: ") and said in each for each in found), found


@pytest.mark.parametrize("audience", ["5", "[]", "[app, 5]"])
def test_a_bad_audience_is_told_by_name(mistakes: Mistakes, acme: str, audience: str) -> None:
    found = mistakes(acme.replace("audience: app", f"audience: {audience}"))
    assert all(each.startswith("tenants/acme.yaml:4:") and "audience" in each for each in found), found


# --- tenants ---


@pytest.mark.parametrize(
    "name", ["Acme", "a b", "-a", "a:b", '"a\\n"', '"a\\nb"', "''", "x" * 64, "é", "a.b", "5", "~"]
)
def test_a_tenant_name_is_plain(mistakes: Mistakes, acme: str, name: str) -> None:
    (found,) = mistakes(acme.replace("tenant: acme", f"tenant: {name}"))
    assert found.startswith("tenants/acme.yaml:1:1: `tenant`")


def test_a_file_without_a_tenant_is_told(mistakes: Mistakes, acme: str) -> None:
    found = mistakes(acme.replace("tenant: acme\n", ""))
    assert "tenants/acme.yaml:1:1: names no tenant; add `tenant: NAME`" in found


def test_two_files_of_one_tenant_are_told(mistakes: Mistakes, acme: str) -> None:
    assert mistakes({"a": acme, "b": acme}) == ["tenants/b.yaml:1:1: a.yaml is tenant 'acme' already"]


def test_a_tenant_that_is_not_enabled_is_left_out(load: Load, acme: str) -> None:
    policies = load({"a": acme, "b": acme.replace("acme", "globex") + "enabled: false\n"})
    assert set(policies.tenants) == {"acme"}


def test_a_tenant_that_is_not_enabled_is_checked_all_the_same(mistakes: Mistakes, acme: str) -> None:
    assert mistakes(acme + "enabled: false\nuser: '1 +'\n")[0].startswith("tenants/acme.yaml:12:1: ")


def test_a_directory_without_tenants_is_told(mistakes: Mistakes, load: Load, acme: str) -> None:
    (said,) = mistakes({})
    assert said.startswith("tenants:1:1: there is no such directory; CHATKIT_MINT_CONFIG_DIR")
    load(acme)


def test_hidden_files_and_tests_of_policies_are_no_tenants(load: Load, acme: str) -> None:
    assert set(load({"acme": acme, ".hidden": "[", "acme.test": "["}).tenants) == {"acme"}


def test_the_version_tells_files_apart_and_nothing_else(load: Load, acme: str, tmp_path: Path) -> None:
    version = load(acme).version
    assert load(acme).version == version
    (tmp_path / "tenants" / "README.md").write_text("…")
    assert load(acme).version == version
    assert load(acme + "# changed\n").version != version


@pytest.mark.parametrize(
    "template",
    [
        "sesion: {}",
        "extends: odd",
        "session: {expires_after: {seconds: 900}}",
        "session: {workflow: ab}",
        "session: {workflow: [1]}",
        "session: 5",
        "upstream: {kind: opnai}",
    ],
)
def test_a_template_that_nobody_extends_is_checked_too(acme: str, mistakes: Mistakes, template: str) -> None:
    found = mistakes({"acme": acme, "templates/odd": f"{template}\n"})
    assert found
    assert all(each.startswith("templates/odd.yaml:1:") for each in found)


def test_an_incomplete_template_is_no_mistake(acme: str, load: Load) -> None:
    text = "session: {rate_limits: {max_requests_per_1_minute: 5}}\n"
    assert set(load({"acme": acme, "templates/odd": text}).tenants) == {"acme"}


def test_nobody_enabled_is_a_mistake(acme: str, mistakes: Mistakes) -> None:
    (found,) = mistakes(f"{acme}enabled: false\n")
    assert "no tenant is enabled" in found


@pytest.mark.parametrize("where", ["match", "subject", "login"])
@pytest.mark.parametrize("what", ["request", "now"])
def test_who_somebody_is_depends_on_no_wish_and_no_time(acme: str, mistakes: Mistakes, where: str, what: str) -> None:
    source = f"has({what}.a)" if what == "request" else 'now < timestamp("2020-01-01T00:00:00Z")'
    (found,) = mistakes(acme.replace("    algorithms", f"    {where}: '{source}'\n    algorithms"))
    assert f"undeclared reference to '{what}" in found


def test_a_tenant_that_is_not_enabled_needs_no_secret(acme: str, load: Load) -> None:
    other = acme.replace("acme", "other").replace("kind: authority", "api_key: {env: MISSING}") + "enabled: false\n"
    assert set(load({"acme": acme, "other": other}).tenants) == {"acme"}
