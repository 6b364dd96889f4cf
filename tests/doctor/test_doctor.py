"""`chatkit-mint doctor` says what stands in the way, before a user finds out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doctor.projects import Projects
from support.processes import clean_environ, deaf_port
from support.tenants import tenant_file, write_config
from support.tokens import Signer
from support.zygote import Call, zygote

pytestmark = pytest.mark.process

KEYS = {
    "OWN": "sk-own",
    "OTHER": "sk-other",
    "DEAD": "sk-dead",
    "MUTE": "sk-without-rights",
    "POOR": "sk-out-of-credit",
}


@pytest.fixture
def upstream() -> Iterator[Projects]:
    with Projects({"sk-own": {"wf_a", "wf_b"}, "sk-other": {"wf_c"}}, named={"sk-own": "proj_own"}) as projects:
        yield projects


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    return f"unix://{redis_socket}?db=9"


def tenant(
    upstream: Projects, name: str = "acme", *, keys: tuple[str, ...] = ("OWN",), **sections: Any
) -> dict[str, Any]:
    identity = {
        "issuer": "https://login.test/",
        "audience": name,
        "algorithms": ["ES256"],
        "jwks": Signer("ES256").jwks,
    }
    refs = [{"env": key} for key in keys]
    project = sections.pop("project", None)
    return tenant_file(
        name,
        sections.pop("identity", identity),
        **{
            "upstream": {
                "kind": "openai",
                "base_url": upstream.url,
                "api_key": refs if len(refs) > 1 else refs[0],
                **({"project": project} if project else {}),
            },
            "session": {"workflow": {"id": "wf_a"}},
            **sections,
        },
    )


def doctor(
    home: Path, *tenants: dict[str, Any], options: tuple[str, ...] = (), **environ: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and the findings by subject."""
    config = write_config(home / "config", *tenants)
    environ = clean_environ(CHATKIT_MINT_CONFIG_DIR=str(config), **KEYS, **environ)
    ran = zygote().run(Call(["doctor", "--json", *options], environ))
    assert ran.err == ""
    assert not any(key in ran.out for key in KEYS.values())
    findings = [json.loads(line) for line in ran.out.splitlines()]
    return ran.code, {each["subject"]: each for each in findings}


def test_all_is_well(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    code, found = doctor(
        tmp_path,
        tenant(
            upstream,
            project="proj_own",
            rules=[{"name": "pro", "when": "true", "session": {"workflow": {"id": "wf_b"}}}],
            client_may={"workflow.id": ["wf_a", "wf_b"]},
        ),
        CHATKIT_MINT_REDIS_URL=redis_url,
    )
    assert {each["verdict"] for each in found.values() if each["subject"] != "redis"} == {"ok"}
    assert code == 0
    # Each workflow once, for a second, and nothing of it stays.
    assert sorted(body["workflow"]["id"] for body in upstream.created) == ["wf_a", "wf_b"]
    assert {body["expires_after"]["seconds"] for body in upstream.created} == {1}
    assert upstream.cancelled == ["cksess_1", "cksess_2"]


def test_both_upstreams_of_a_share_are_tried(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    split = [
        {"percent": 10, "upstream": {"kind": "authority"}},
        {"percent": 5, "upstream": {"kind": "openai", "base_url": upstream.url, "api_key": {"env": "DEAD"}}},
    ]
    share = {"name": "self-hosted", "split": split}
    code, found = doctor(tmp_path, tenant(upstream, rollout=[share]), CHATKIT_MINT_REDIS_URL=redis_url)
    tried = {subject: each["verdict"] for subject, each in found.items() if "workflow" in subject}
    assert tried == {
        "tenant acme: workflow wf_a (session)": "ok",
        "tenant acme: workflow wf_a (rollout 'self-hosted', authority)": "ok",
        "tenant acme: workflow wf_a (rollout 'self-hosted', openai)": "wrong",
    }
    assert code == 1
    assert upstream.cancelled == ["cksess_1"]


@pytest.mark.parametrize(
    ("sections", "detail"),
    [
        ({"keys": ("DEAD",)}, "bad key: upstream answered 401 invalid_api_key"),
        ({"keys": ("MUTE",)}, "not permitted: upstream answered 403 insufficient_permissions"),
        ({"keys": ("POOR",)}, "no credit: upstream answered 429 insufficient_quota"),
        ({"project": "proj_else"}, "wrong project: upstream answered 401 mismatched_project"),
        ({"session": {"workflow": {"id": "wf_nowhere"}}}, "unknown workflow: there is none of that id"),
        ({"session": {"workflow": {"id": "wf_c"}}}, "wrong project: the key of tenant globex knows this workflow"),
        (
            {"session": {"workflow": {"id": "wf_a", "state_variables": {"colour": "red"}}}},
            "refused: upstream answered 400 unknown_parameter",
        ),
    ],
    ids=["bad key", "no rights", "no credit", "another project", "no such workflow", "another's workflow", "a field"],
)
def test_what_is_wrong_upstream_is_told_apart(
    tmp_path: Path, upstream: Projects, redis_url: str, sections: dict[str, Any], detail: str
) -> None:
    globex = tenant(upstream, "globex", keys=("OTHER",), session={"workflow": {"id": "wf_c"}})
    code, found = doctor(tmp_path, tenant(upstream, **sections), globex, CHATKIT_MINT_REDIS_URL=redis_url)
    wrong = [each for each in found.values() if each["verdict"] == "wrong"]
    assert code == 1
    assert [each["subject"].startswith("tenant acme: workflow") for each in wrong] == [True]
    assert wrong[0]["detail"].startswith(detail)
    assert wrong[0]["hint"]


def test_each_key_of_a_rotation_is_tried(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    code, found = doctor(tmp_path, tenant(upstream, keys=("OWN", "DEAD")), CHATKIT_MINT_REDIS_URL=redis_url)
    verdicts = {subject.rpartition("key ")[2]: each["verdict"] for subject, each in found.items() if "key " in subject}
    assert (code, verdicts) == (1, {"1 of 2)": "ok", "2 of 2)": "wrong"})


def test_a_cancel_that_fails_is_told(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    upstream.cancels_fail = True
    code, found = doctor(tmp_path, tenant(upstream), CHATKIT_MINT_REDIS_URL=redis_url)
    assert code == 1
    assert "the cancel failed" in found["tenant acme: workflow wf_a (session)"]["detail"]


def test_a_workflow_that_depends_on_the_caller_is_a_warning(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    file = tenant(upstream, session={"workflow": {"id": "${claims.plan}"}})
    code, found = doctor(tmp_path, file, CHATKIT_MINT_REDIS_URL=redis_url)
    assert (code, found["tenant acme: session"]["verdict"], upstream.created) == (0, "warning", [])


def test_keys_that_can_not_be_had_are_told(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    issuer = f"http://127.0.0.1:{deaf_port()}"
    file = tenant(upstream, identity={"issuer": issuer, "audience": "acme", "algorithms": ["ES256"]})
    code, found = doctor(tmp_path, file, CHATKIT_MINT_REDIS_URL=redis_url, options=("--no-mint",))
    assert (code, found[f"tenant acme: keys of {issuer}"]["verdict"], upstream.created) == (1, "wrong", [])


@pytest.mark.parametrize(
    ("url", "detail"),
    [("", "none is configured: serve starts redis-server"), (f"redis://127.0.0.1:{deaf_port()}", "Redis: Connection")],
    ids=["none", "away"],
)
def test_redis_is_looked_at(tmp_path: Path, upstream: Projects, url: str, detail: str) -> None:
    environ = {"CHATKIT_MINT_REDIS_URL": url} if url else {}
    _, found = doctor(tmp_path, tenant(upstream), options=("--no-mint",), **environ)
    assert detail in found["redis"]["detail"]
    assert found["redis"]["hint"]


def test_one_tenant_alone(tmp_path: Path, upstream: Projects, redis_url: str) -> None:
    files = (tenant(upstream), tenant(upstream, "globex", keys=("DEAD",)))
    code, found = doctor(tmp_path, *files, options=("--tenant", "acme"), CHATKIT_MINT_REDIS_URL=redis_url)
    assert code == 0
    assert not any("globex" in subject for subject in found)


def test_for_people_it_says_what_to_do_and_how_many(tmp_path: Path, upstream: Projects) -> None:
    config = write_config(tmp_path / "config", tenant(upstream, keys=("DEAD",)))
    environ = clean_environ(CHATKIT_MINT_CONFIG_DIR=str(config), **KEYS)
    ran = zygote().run(Call(["doctor"], environ))
    assert "→ make a new key in the workflow's project" in ran.out
    assert ran.out.endswith("1 ok, 1 warning, 1 wrong.\n")
