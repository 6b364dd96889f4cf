"""Upstream's answers as its documents show them, contradictions included, and as nobody would expect them."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.contract import CreateSession, flatten
from service.errors import UpstreamInvalid
from service.session import Minted, Session, Status
from service.upstream.wire import MAX_SECRET, read_cancelled, read_minted

NOW = 1_700_000_000.9
ASKED: CreateSession = {
    "user": "acme:ada",
    "workflow": {"id": "wf_asked", "version": "7", "state_variables": {"plan": "pro"}, "tracing": {"enabled": False}},
    "expires_after": {"anchor": "created_at", "seconds": 300},
    "rate_limits": {"max_requests_per_1_minute": 20},
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 20, "max_files": 5},
        "history": {"enabled": False, "recent_threads": 3},
    },
}
LEAST: CreateSession = {"user": "acme:ada", "workflow": {"id": "wf_asked"}}

# shared/seeds/session-object.md, and (with another version) openapi-perl.md.
OBJECT = """{
  "id": "cksess_123", "object": "chatkit.session", "client_secret": "ek_token_123", "expires_at": 1712349876,
  "workflow": {"id": "workflow_alpha", "version": "2024-10-01"},
  "user": "user_789", "rate_limits": {"max_requests_per_1_minute": 60}, "max_requests_per_1_minute": 60,
  "status": "cancelled",
  "chatkit_configuration": {
    "automatic_thread_titling": {"enabled": true},
    "file_upload": {"enabled": true, "max_file_size": 16, "max_files": 20},
    "history": {"enabled": true, "recent_threads": 10}
  }
}"""
# create-python.md and sessions-java.md, the example that was filled in by a generator.
GENERATED = """{
  "id": "id",
  "chatkit_configuration": {
    "automatic_thread_titling": {"enabled": true},
    "file_upload": {"enabled": true, "max_file_size": 0, "max_files": 0},
    "history": {"enabled": true, "recent_threads": 0}
  },
  "client_secret": "client_secret", "expires_at": 0, "max_requests_per_1_minute": 0, "object": "chatkit.session",
  "rate_limits": {"max_requests_per_1_minute": 0}, "status": "active", "user": "user",
  "workflow": {"id": "id", "state_variables": {"foo": "string"}, "tracing": {"enabled": true}, "version": "version"}
}"""
# create-python.md, create-ruby.md and sessions-java.md: no id, no object, no user.
CREATED = """{
  "client_secret": "chatkit_token_123", "expires_at": 1735689600,
  "workflow": {"id": "workflow_alpha", "version": "2024-10-01"},
  "scope": {"project": "alpha", "environment": "staging"},
  "max_requests_per_1_minute": 60, "max_requests_per_session": 500, "status": "active"
}"""
# sessions-java.md: no secret, no expires_at, no user, and a lifetime over the documented maximum.
CANCELLED = """{
  "id": "cksess_123", "object": "chatkit.session", "workflow": {"id": "workflow_alpha", "version": "1"},
  "scope": {"customer_id": "cust_456"}, "max_requests_per_1_minute": 30, "ttl_seconds": 900,
  "status": "cancelled", "cancelled_at": 1712345678
}"""


def minted(answer: Any, body: CreateSession = ASKED, *, now: float = NOW) -> Minted:
    return read_minted(answer, body, now=now)


def smallest(**fields: Any) -> dict[str, Any]:
    return {"id": "cksess_1", "client_secret": "ek_1", **fields}


def test_the_documented_object_is_read_as_it_stands() -> None:
    found = minted(orjson.loads(OBJECT), now=1_712_349_600)
    assert found.client_secret == "ek_token_123"
    assert found.session.public(state_variables=True) == {
        **{name: value for name, value in orjson.loads(OBJECT).items() if name != "client_secret"},
        # The example leaves these out of the workflow: they are what we asked for.
        "workflow": {
            "id": "workflow_alpha",
            "version": "2024-10-01",
            "state_variables": {"plan": "pro"},
            "tracing": {"enabled": False},
        },
    }


def test_the_generated_example_is_read_without_its_zero_expiry() -> None:
    session = minted(orjson.loads(GENERATED)).session
    assert session.expires_at == 1_700_000_300
    assert session.workflow == {
        "id": "id",
        "version": "version",
        "state_variables": {"foo": "string"},
        "tracing": {"enabled": True},
    }


def test_the_create_example_can_not_be_revoked_and_is_refused() -> None:
    with pytest.raises(UpstreamInvalid, match="id"):
        minted(orjson.loads(CREATED))


def test_the_create_example_with_an_id_is_filled_from_what_was_asked() -> None:
    session = minted(orjson.loads(CREATED) | {"id": "cksess_9"}, now=1_735_689_300).session
    assert session == Session(
        id="cksess_9",
        user="acme:ada",
        expires_at=1_735_689_600,
        status=Status.ACTIVE,
        workflow={
            "id": "workflow_alpha",
            "version": "2024-10-01",
            "state_variables": {"plan": "pro"},
            "tracing": {"enabled": False},
        },
        rate_limits={"max_requests_per_1_minute": 60},
        chatkit_configuration=dict(ASKED["chatkit_configuration"]),
    )


def test_the_cancel_example_is_read_for_what_it_says() -> None:
    session = read_cancelled(orjson.loads(CANCELLED), "cksess_123")
    assert (session.id, session.status, session.user) == ("cksess_123", Status.CANCELLED, "")
    assert session.workflow["id"] == "workflow_alpha"
    assert session.rate_limits == {"max_requests_per_1_minute": 30}


def test_an_answer_without_a_workflow_is_filled_from_what_was_asked() -> None:
    """Seen live once."""
    assert minted(smallest()).session.workflow == ASKED["workflow"]
    assert minted(smallest(), LEAST).session.workflow == {
        "id": "wf_asked",
        "version": None,
        "state_variables": None,
        "tracing": {"enabled": True},
    }


def test_defaults_stand_where_nobody_said_anything() -> None:
    session = minted(smallest(), LEAST).session
    assert session.expires_at == 1_700_000_600
    assert session.rate_limits == {"max_requests_per_1_minute": 10}
    assert session.chatkit_configuration == {
        "automatic_thread_titling": {"enabled": True},
        "file_upload": {"enabled": False, "max_file_size": 512, "max_files": 10},
        "history": {"enabled": True, "recent_threads": None},
    }


@pytest.mark.parametrize("version", ["2024-10-01", "1", "2024-10-01T00:00:00.000Z", "x" * 500])
def test_a_version_is_opaque(version: str) -> None:
    assert minted(smallest(workflow={"id": "wf", "version": version})).session.workflow["version"] == version


@pytest.mark.parametrize("secret", ["ek_68f1", "chatkit_token_123", "x" * MAX_SECRET, "ü ?"])
def test_a_secret_is_opaque_and_only_in_its_own_field(secret: str) -> None:
    found = minted(smallest(client_secret=secret))
    assert found.client_secret == secret
    assert secret not in repr(found)
    assert "client_secret" not in found.session.public(state_variables=True)


def test_an_older_answer_without_an_end_lives_as_long_as_asked() -> None:
    assert minted(smallest(expires_after=1800)).session.expires_at == 1_700_000_300
    assert minted(smallest(expires_after=1800, expires_at=1_700_000_060)).session.expires_at == 1_700_000_060


@pytest.mark.parametrize("seconds", [1, 60, 300, 301, 360, 600])
def test_an_end_that_upstream_tells_is_kept_even_if_it_is_later_than_asked(seconds: int) -> None:
    """A record that ends before its session would leave nothing for a logout to cancel."""
    assert minted(smallest(expires_at=1_700_000_000 + seconds)).session.expires_at == 1_700_000_000 + seconds


@pytest.mark.parametrize("end", [1_700_000_000 + 900, 1_700_000_600_000, 2**63, 1e300])
def test_an_end_beyond_any_session_is_cut_to_what_a_session_can_have(end: float) -> None:
    assert 1_700_000_300 <= minted(smallest(expires_at=end)).session.expires_at <= 1_700_000_660


def test_null_is_an_answer_where_it_may_be_one() -> None:
    told = {"history": {"enabled": True, "recent_threads": None}, "file_upload": {"max_file_size": None}}
    session = minted(smallest(chatkit_configuration=told, workflow={"id": "wf", "state_variables": None})).session
    assert session.chatkit_configuration["history"] == {"enabled": True, "recent_threads": None}
    assert session.chatkit_configuration["file_upload"] == {"enabled": True, "max_file_size": None, "max_files": 5}
    assert session.workflow["state_variables"] is None


def test_the_copy_of_the_limit_counts_where_the_limit_is_missing() -> None:
    assert minted(smallest(max_requests_per_1_minute=60)).session.rate_limits == {"max_requests_per_1_minute": 60}
    both = smallest(max_requests_per_1_minute=60, rate_limits={"max_requests_per_1_minute": 50})
    assert minted(both).session.rate_limits == {"max_requests_per_1_minute": 50}


@pytest.mark.parametrize("secret", [None, "", 5, True, ["ek"], {"value": "ek"}, "x" * (MAX_SECRET + 1)])
def test_an_answer_without_a_secret_is_refused(secret: Any) -> None:
    with pytest.raises(UpstreamInvalid, match="no client_secret") as refused:
        minted(smallest(client_secret=secret))
    assert refused.value.session_id == "cksess_1"  # so that it can be cancelled


@pytest.mark.parametrize("session_id", [None, "", 5, True, ["cksess"], "x" * 257, "cksess_é", "a/b", "..", "~1", "a\n"])
def test_an_answer_without_an_id_to_revoke_by_is_refused(session_id: Any) -> None:
    with pytest.raises(UpstreamInvalid, match="id") as refused:
        minted(smallest(id=session_id, client_secret="ek_hunter2"))
    assert "hunter2" not in str(refused.value)
    assert refused.value.session_id is None


@pytest.mark.parametrize("answer", [None, [], "cksess_1", 5, True, [{"id": "a", "client_secret": "b"}], {}])
def test_what_is_no_session_at_all_is_refused(answer: Any) -> None:
    with pytest.raises(UpstreamInvalid):
        minted(answer)


@pytest.mark.parametrize(
    "field",
    ["expires_at", "user", "status", "workflow", "rate_limits", "max_requests_per_1_minute", "chatkit_configuration"],
)
@pytest.mark.parametrize("value", [None, "", [], [1], True, -1, -1.5, 0])
def test_a_field_of_the_wrong_kind_is_as_good_as_missing(field: str, value: Any) -> None:
    if field == "max_requests_per_1_minute" and type(value) in (int, float):
        value = str(value)
    assert minted(smallest(**{field: value})).session == minted(smallest()).session


@pytest.mark.parametrize("name", ["max_file_size", "max_files"])
@pytest.mark.parametrize("value", ["16", [], True])
def test_a_count_of_the_wrong_kind_is_as_good_as_missing(name: str, value: Any) -> None:
    told = {"file_upload": {"enabled": True, name: value}}
    found = minted(smallest(chatkit_configuration=told)).session.chatkit_configuration
    assert found["file_upload"] == {"enabled": True, "max_file_size": 20, "max_files": 5}


@pytest.mark.parametrize("value", ["x", []])
def test_state_variables_of_the_wrong_kind_are_as_good_as_missing(value: Any) -> None:
    found = minted(smallest(workflow={"id": "wf", "state_variables": value, "version": value and [value]})).session
    assert found.workflow == {**ASKED["workflow"], "id": "wf"}


def test_what_is_not_known_is_left_out_of_what_we_answer() -> None:
    extra = {"scope": {"customer_id": "x"}, "ttl_seconds": 900, "internal": "hunter2"}
    answer = smallest(**extra, workflow={"id": "wf", **extra}, chatkit_configuration={"history": extra, **extra})
    assert minted(answer).session.public(state_variables=True).keys() == {
        "id",
        "object",
        "expires_at",
        "user",
        "status",
        "workflow",
        "rate_limits",
        "max_requests_per_1_minute",
        "chatkit_configuration",
    }
    assert "hunter2" not in str(minted(answer))


@pytest.mark.parametrize(
    "answer", [None, [], "", "cancelled", 5, {}, {"status": "active"}, {"id": "another", "user": 5}]
)
def test_a_cancel_that_succeeded_says_cancelled_whatever_the_body(answer: Any) -> None:
    session = read_cancelled(answer, "cksess_1")
    assert (session.id, session.status) == ("cksess_1", Status.CANCELLED)
    assert orjson.dumps(session.public())


NAMES = st.sampled_from([name for path in flatten(orjson.loads(OBJECT) | {"expires_after": 1}) for name in path])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.sampled_from(["active", "expired", "cksess_1", "ek_1", "", 0, -1, 1e300, 600]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
FIELDS = st.dictionaries(NAMES, JSON, max_size=8)


@settings(max_examples=300, deadline=None)
@given(JSON | FIELDS | FIELDS.map(lambda fields: smallest() | fields) | FIELDS.map(lambda fields: fields | smallest()))
@example(smallest(max_requests_per_1_minute=1e300))
@example(smallest(expires_at=1e300))
@example(smallest(status={"of": []}, user=[], workflow=[{}], chatkit_configuration={"history": 5}))
def test_any_json_is_a_session_that_we_can_pass_on_or_is_refused(answer: Any) -> None:
    for body in (ASKED, LEAST):
        try:
            found = minted(answer, body)
        except UpstreamInvalid:
            continue
        assert NOW < found.session.expires_at <= NOW + 660
        assert orjson.loads(orjson.dumps(found.session.public(state_variables=True)))["id"] == found.session.id
    assert orjson.dumps(read_cancelled(answer, "cksess_1").public(state_variables=True))
