"""What a tenant file may say: constants within ChatKit's contract, keys from one place, secrets by reference."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.policy.tenant import Policies
from service.principal import Discovery, InlineJwks, JwksFile, JwksUrl, SharedSecret
from support.tokens import Signer

Load = Callable[..., Policies]
Mistakes = Callable[..., list[str]]

LONG = "k" * 32
OPENAI = "kind: openai"


# --- constants against the contract ---


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("expires_after: {seconds: 900}", "`seconds`: should be less than or equal to 600"),
        ("expires_after: {seconds: 0}", "`seconds`: should be greater than or equal to 1"),
        ("expires_after: {seconds: true}", "`seconds`: should be a whole number"),
        ("expires_after: {seconds: 60.0}", "`seconds`: should be a whole number"),
        ("expires_after: {seconds: '60'}", "`seconds`: should be a whole number"),
        ("expires_after: {seconds: '$${60}'}", "`seconds`: should be a whole number"),
        ("expires_after: {anchor: now}", "`anchor`: should be 'created_at'"),
        ("rate_limits: {max_requests_per_1_minute: 0}", "greater than or equal to 1"),
        ("rate_limits: {max_requests_per_1_minute: 100000000000000000000}", "max_requests_per_1_minute"),
        ("rate_limits: {max_requests_per_minute: 5}", "did you mean `rate_limits.max_requests_per_1_minute`?"),
        ("chatkit_configuration: {file_upload: {max_file_size: 513}}", "less than or equal to 512"),
        ("chatkit_configuration: {file_upload: {max_files: 0}}", "greater than or equal to 1"),
        ("chatkit_configuration: {history: {enabled: 1}}", "`enabled`: should be true or false"),
        ("chatkit_configuration: {histroy: {enabled: true}}", "did you mean `chatkit_configuration.history.enabled`?"),
        ("usr: ada", "unknown field `usr`"),
        ("user: ada", "`user` is mapped by the tenant's own `user:`"),
        ("expires_after: 60", "expires_after"),
        ("rate_limits: [1]", "rate_limits"),
        ("rate_limits: ~", "rate_limits"),
    ],
)
@pytest.mark.parametrize("part", ["session", "rule"])
def test_a_constant_outside_the_contract_is_refused(
    mistakes: Mistakes, acme: str, part: str, field: str, said: str
) -> None:
    text = acme + (
        f"  {field}\n" if part == "session" else f"rules:\n  - name: a\n    when: 'true'\n    session: {{{field}}}\n"
    )
    (found,) = mistakes(text)
    assert found.startswith("tenants/acme.yaml:11:" if part == "session" else "tenants/acme.yaml:14:")
    assert said in found


@pytest.mark.parametrize(
    "workflow",
    [
        "version: latest",
        "version: ''",
        "version: 1",
        "state_variables: {a: {b: 1}}",
        "state_variables: {a: [1]}",
        "state_variables: {a: ~}",
        "state_variables: {a: 1e999}",
        "state_variables: {a: 100000000000000000000}",
        "state_variables: {'': 1}",
        f"state_variables: {{{'k' * 65}: 1}}",
        "state_variables: {" + ", ".join(f"k{i}: 1" for i in range(65)) + "}",
        "state_variables: [a]",
        "state_variables: ~",
        "tracing: true",
        "isValid: true",
        "state_variables: {a: '${claims.x'}",
        "state_variables: {a: '${1 +}'}",
        "state_variables: {a: '${[1]}'}",
    ],
)
def test_a_workflow_outside_the_contract_is_refused(mistakes: Mistakes, acme: str, workflow: str) -> None:
    (found,) = mistakes(acme + f"    {workflow}\n")
    assert found.startswith("tenants/acme.yaml:11:")


@pytest.mark.parametrize(
    "workflow",
    [
        f"version: '2024-10-01'\n    state_variables: {{{'k' * 64}: text, b: true, c: 1, d: 1.5, e: on, f: '${{1}}'}}",
        "state_variables: {" + ", ".join(f"k{i}: 1" for i in range(64)) + "}",
        "state_variables: {}",
    ],
)
def test_a_workflow_within_the_contract_loads(load: Load, acme: str, workflow: str) -> None:
    assert load(acme + f"    {workflow}\n").tenants


def test_a_session_needs_a_workflow(mistakes: Mistakes, acme: str) -> None:
    (found,) = mistakes(acme.replace("    id: wf_support\n", "    version: '1'\n"))
    assert found.startswith("tenants/acme.yaml:8:1: `workflow.id` is missing")


# --- whom to believe ---


def identity(acme: str, more: str, algorithms: str = "ES256", issuer: str = "https://login.example/") -> str:
    return (
        acme.replace("    algorithms: [ES256]\n", f"    algorithms: [{algorithms}]\n    {more}\n")
        if issuer == "https://login.example/"
        else acme.replace("https://login.example/", f"'{issuer}'").replace("    audience", f"    {more}\n    audience")
    )


@pytest.mark.parametrize(
    ("more", "algorithms", "keys"),
    [
        ("leeway: 5", "ES256", Discovery("https://login.example/", "https://login.example/.well-known/openid-configuration")),
        ("discovery: https://d.example/x", "RS256", Discovery("https://login.example/", "https://d.example/x")),
        ("jwks_url: https://d.example/jwks", "PS256, EdDSA", JwksUrl("https://d.example/jwks")),
        (f"jwks_file: {__file__}", "ES256", JwksFile(Path(__file__))),
    ],
)  # fmt: skip
def test_keys_come_from_where_the_file_says(load: Load, acme: str, more: str, algorithms: str, keys: object) -> None:
    (trust,) = load(identity(acme, more, algorithms)).tenants["acme"].trusts
    assert trust.keys == keys
    assert trust.algorithms == frozenset(algorithms.split(", "))


def test_keys_may_stand_in_the_file(load: Load, acme: str) -> None:
    jwks = Signer().jwks
    (trust,) = load(identity(acme, f"jwks: {json.dumps(jwks)}")).tenants["acme"].trusts
    assert isinstance(trust.keys, InlineJwks)
    assert json.loads(trust.keys.text) == jwks


@pytest.mark.parametrize(
    "keys", ["[]", "[{kty: EC}]", "~", "[{n: 100000000000000000000}]", "[{n: 1e999}]", '[{x: "\\0"}]']
)
def test_keys_in_the_file_that_are_none_are_told(mistakes: Mistakes, acme: str, keys: str) -> None:
    (found,) = mistakes(identity(acme, f"jwks: {{keys: {keys}}}"))
    assert found.startswith("tenants/acme.yaml:6:5: ")


def test_several_issuers_say_each_what_a_subject_is(load: Load, mistakes: Mistakes, acme: str) -> None:
    other = "  - {issuer: https://other.example, audience: app, algorithms: [ES256], subject: '\"o:\" + claims.sub'}\n"
    text = acme.replace("upstream:\n", f"{other}upstream:\n")
    (found,) = mistakes(text)
    assert found.startswith("tenants/acme.yaml:3:5: with several issuers each needs a `subject`")
    assert load(text.replace("    audience: app\n", "    audience: app\n    subject: claims.sub\n")).tenants


def test_a_shared_secret_comes_by_reference(load: Load, acme: str) -> None:
    policies = load(identity(acme, "secret: {env: S}", "HS256"), environ={"S": LONG})
    (trust,) = policies.tenants["acme"].trusts
    assert isinstance(trust.keys, SharedSecret)
    assert trust.keys.secret.get_secret_value() == LONG
    assert LONG not in repr(policies)


@pytest.mark.parametrize(
    ("more", "algorithms", "said"),
    [
        ("jwks_url: https://a/b\n    jwks_file: c", "ES256", "from one place; keep one of jwks_url, jwks_file"),
        ("secret: {env: S}\n    discovery: https://a/b", "HS256", "keep one of discovery, secret"),
        ("leeway: 5", "HS256", "HS algorithms go with `secret`"),
        ("secret: {env: S}", "ES256", "HS algorithms go with `secret`"),
        ("secret: {env: S}", "HS256, ES256", "the two never mix"),
        ("jwks: {keys: []}", "HS256", "HS algorithms go with `secret`"),
        ("leeway: 5", "none", "RS256"),
        ("leeway: 5", "", "at least 1 item"),
        ("leeway: 301", "ES256", "`leeway`"),
        ("max_age: 59", "ES256", "`max_age`"),
        ("match: '1'", "ES256", "gives int where bool is needed"),
        ("subject: '1'", "ES256", "gives int where string is needed"),
        ("isuer: a", "ES256", "unknown key `isuer`; did you mean `issuer`?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_together_is_refused(
    mistakes: Mistakes, acme: str, more: str, algorithms: str, said: str
) -> None:
    (found,) = mistakes(identity(acme, more, algorithms), environ={"S": LONG})
    assert found.startswith("tenants/acme.yaml:")
    assert 3 <= int(found.split(":")[1]) <= 7
    assert said in found


LOOPBACK = ["http://127.0.0.1", "http://localhost:8081", "http://[::1]:8081/x", "http://127.0.0.1:8081/a?b"]
SEEN_BY_OTHERS = [
    "http://login.example",
    "http://127.0.0.1.evil.com",
    "http://localhost.evil.com:80",
    "http://localhostevil.com",
    "http://localhost@evil.com/",
    "http://127.0.0.1@evil.com/",
    "http://localhost:80@evil.com/",
    "http://127.0.0.1:8081@evil.com",
    "http://localhost:\\@evil.com",
    "http://evil.com/http://localhost",
    "http://evil.com#http://localhost",
    "http://0.0.0.0",
    "ftp://localhost",
    "//localhost",
    "localhost",
    "https://",
    "https:///path",
]


@pytest.mark.parametrize("url", ["https://login.example/", *LOOPBACK])
def test_an_issuer_is_reached_privately(load: Load, acme: str, url: str) -> None:
    assert load(identity(acme, "leeway: 5", issuer=url)).tenants
    assert load(identity(acme, f"jwks_url: {url}")).tenants
    assert load(acme.replace("kind: authority", f"{OPENAI}\n  base_url: {url}")).tenants["acme"].account.base_url


@pytest.mark.parametrize("url", SEEN_BY_OTHERS)
def test_an_issuer_that_others_could_answer_for_is_refused(mistakes: Mistakes, acme: str, url: str) -> None:
    assert mistakes(identity(acme, "leeway: 5", issuer=url))[0].startswith("tenants/acme.yaml:3:5: ")
    for key in ("jwks_url", "discovery"):
        assert mistakes(identity(acme, f"{key}: '{url}'"))[0].startswith("tenants/acme.yaml:6:5: ")


@pytest.mark.parametrize("url", SEEN_BY_OTHERS)
def test_an_upstream_that_others_could_listen_to_is_refused(mistakes: Mistakes, acme: str, url: str) -> None:
    openai = acme.replace("kind: authority", f"{OPENAI}\n  base_url: '{url}'")
    assert mistakes(openai)[0].startswith("tenants/acme.yaml:8:3: ")
    assert mistakes(acme.replace("kind: authority", OPENAI), base_url=url)[0].startswith("tenants/acme.yaml:6:1: ")


def test_an_issuer_whose_keys_are_in_a_file_is_only_a_name(load: Load, acme: str) -> None:
    assert load(identity(acme, f"jwks_file: {__file__}", issuer="http://login.example")).tenants


# --- secrets ---


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("api_key: sk-hunter2", "a secret is never written into the file; use {env: NAME} or {file: PATH}"),
        ("api_key: [sk-hunter2]", "a secret is never written into the file"),
        ("api_key: {env: sk-hunter2}", "names an environment variable, not the secret itself"),
        ("api_key: {key: sk-hunter2}", "unknown key `key`"),
        ("api_key: {env: A, file: sk-hunter2}", "one of {env: NAME} or {file: PATH}"),
        ("api_key: {}", "one of {env: NAME} or {file: PATH}"),
        ("api_key: {env: MISSING}", "the environment variable MISSING is not set"),
        ("api_key: {env: EMPTY}", "the environment variable EMPTY is not set"),
        ("api_key: {file: /nowhere/key}", "can't read /nowhere/key: No such file or directory"),
        ("api_key: []", "at least 1 item"),
        ("api_key: [{env: KEY}, {env: KEY}, {env: KEY}, {env: KEY}]", "at most 3 items"),
        ("api_key: [{env: KEY}, {env: MISSING}]", "the environment variable MISSING is not set"),
        ("api_key: [{env: KEY}, {env: TWO_LINES}]", "characters that no HTTP header can carry"),
        ("api_key: [{env: KEY}, {key: sk-hunter2}]", "unknown key `key`"),
        ("max_concurrent: 0", "greater than or equal to 1"),
        ("retry_creates: 1", "true or false"),
        ("api_key: {file: /}", "can't read /: Is a directory"),
        ('api_key: {file: "a\\0b"}', ""),
        ("api_key: {env: TWO_LINES}", ""),
        ("api_key: {env: NOT_ASCII}", ""),
        ('project: "proj\\nX-Admin: yes"', ""),
        ("organization: örg", ""),
    ],
)
def test_a_secret_that_is_not_there_or_not_usable_is_refused(
    mistakes: Mistakes, acme: str, more: str, said: str
) -> None:
    environ = {"KEY": "sk-1", "EMPTY": "", "TWO_LINES": "hunter2\r\nX-Admin: yes", "NOT_ASCII": "hunter2-é"}
    found = mistakes(acme.replace("kind: authority", f"{OPENAI}\n  {more}"), environ=environ)
    assert all(each.startswith("tenants/acme.yaml:8:") for each in found)
    assert said in found[0]
    assert "hunter2" not in str(found)


def test_secrets_come_from_environment_or_file(load: Load, acme: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file\n")
    for ref, key in (("{env: KEY}", "sk-env"), (f"{{file: {tmp_path / 'key'}}}", "sk-file")):
        text = acme.replace("kind: authority", f"{OPENAI}\n  api_key: {ref}")
        account = load(text, environ={"KEY": "sk-env"}).tenants["acme"].account
        assert [each.get_secret_value() for each in account.api_keys] == [key]
        assert key not in repr(account)


def test_several_keys_are_tried_in_the_order_of_the_file(load: Load, acme: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-new\n")
    keys = f"[{{file: {tmp_path / 'key'}}}, {{env: OLD}}, {{env: SAME}}]"
    text = acme.replace("kind: authority", f"{OPENAI}\n  api_key: {keys}\n  max_concurrent: 7\n  retry_creates: true")
    account = load(text, environ={"OLD": "sk-old", "SAME": "sk-old"}).tenants["acme"].account
    assert [key.get_secret_value() for key in account.api_keys] == ["sk-new", "sk-old"]
    assert (account.max_concurrent, account.retry_creates) == (7, True)
    assert not {"sk-new", "sk-old"} & set(repr(account).split("'"))


def test_rotating_keys_does_not_move_a_session(load: Load, acme: str) -> None:
    text = acme.replace("kind: authority", f"{OPENAI}\n  api_key: {{env: KEY}}")
    assert len({load(text, environ={"KEY": key}).tenants["acme"].account.place for key in ("sk-1", "sk-2")}) == 1


def test_without_a_key_of_its_own_a_tenant_uses_the_usual_one(load: Load, mistakes: Mistakes, acme: str) -> None:
    openai = acme.replace("kind: authority", OPENAI)
    (key,) = load(openai).tenants["acme"].account.api_keys
    assert key.get_secret_value() == "sk-default"
    (found,) = mistakes(openai, key=None)
    assert found.startswith("tenants/acme.yaml:6:1: no API key: set OPENAI_API_KEY")


@pytest.mark.parametrize(("secret", "ok"), [("k" * 31, False), ("é" * 16, True), (LONG, True)])
def test_secrets_that_make_or_check_signatures_are_long(
    load: Load, mistakes: Mistakes, acme: str, secret: str, ok: bool
) -> None:
    for text in (identity(acme, "secret: {env: S}", "HS256"), acme + "pseudonymous: {key: {env: S}}\n"):
        if ok:
            assert load(text, environ={"S": secret}).tenants
        else:
            assert "32 bytes" in mistakes(text, environ={"S": secret})[0]


# --- what tenants share ---


def test_tenants_of_one_template_share_what_is_the_same_and_nothing_else(load: Load, acme: str) -> None:
    """1, 1.0 and true are equal in Python, and three things to a workflow."""

    def tenant(name: str, value: str) -> str:
        return acme.replace("tenant: acme", f"tenant: {name}") + f"    state_variables: {{tier: {value}}}\n"

    values = {"one": "1", "also-one": "1", "true": "true", "float": "1.0", "long": "x" * 300, "also-long": "x" * 300}
    files = {name: tenant(f"t-{name}", value) for name, value in values.items()}
    held = {name: load(files).tenants[f"t-{name}"].session.constant for name in files}
    tier = ("workflow", "state_variables", "tier")
    assert {name: (type(each[tier]), each[tier]) for name, each in held.items()} == {
        "one": (int, 1),
        "also-one": (int, 1),
        "true": (bool, True),
        "float": (float, 1.0),
        "long": (str, "x" * 300),
        "also-long": (str, "x" * 300),
    }
    assert held["one"] is held["also-one"]
    assert held["long"] is not held["also-long"], "long texts aren't kept for others"
