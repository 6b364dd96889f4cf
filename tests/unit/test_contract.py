"""The create body: each field's range, and its flat form."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.contract import CREATE, LEAVES, MAX_STATE_TEXT, WISH, dotted, flatten, leaf, unflatten

LIMIT = "rate_limits.max_requests_per_1_minute"
UPLOAD = "chatkit_configuration.file_upload"
STATE = "workflow.state_variables"


def body_with(field: str, value: Any) -> dict[str, Any]:
    flat = {("user",): "u", ("workflow", "id"): "wf", tuple(field.split(".", 2)): value}
    if field.startswith("expires_after"):
        flat = {("expires_after", "anchor"): "created_at", ("expires_after", "seconds"): 600, **flat}
    return unflatten(flat)


def accepted(shape: TypeAdapter[Any], body: Any) -> bool:
    try:
        shape.validate_python(body)
    except ValidationError:
        return False
    return True


TABLE: list[tuple[str, list[Any], list[Any]]] = [
    ("user", ["u", "x" * 512, "é|%"], ["", "x" * 513, None, 5, True, ["u"], "\ud800"]),
    ("workflow.id", ["wf", "x" * 256], ["", "x" * 257, None, 5]),
    ("workflow.version", ["1", "2024-10-01", "Latest"], ["", "latest", None, 1, "x" * 257]),
    ("workflow.tracing", [{}, {"enabled": True}, {"enabled": False}], [True, None, {"enabled": 1}, {"on": True}]),
    ("expires_after.seconds", [1, 600], [0, 601, -1, 900, 60.0, "60", True, None]),
    ("expires_after.anchor", ["created_at"], ["last_active_at", "", None]),
    (LIMIT, [1, 10**6], [0, -1, 1.0, "1", True, None, 2**64, 10**30]),
    (f"{UPLOAD}.enabled", [True, False], [0, 1, "true", None]),
    (f"{UPLOAD}.max_file_size", [1, 512], [0, 513, 1.5, True, "1"]),
    (f"{UPLOAD}.max_files", [1, 1000], [0, -5, 1.0, False, 2**64]),
    ("chatkit_configuration.history.enabled", [True, False], [1, None]),
    ("chatkit_configuration.history.recent_threads", [1, 1000], [0, True, 2**64]),
    ("chatkit_configuration.automatic_thread_titling.enabled", [True], ["yes", 0]),
    (STATE, [{}, {f"k{i}": i for i in range(64)}], [{f"k{i}": i for i in range(65)}, None, [], "x", {"": 1}, {1: 1}]),
    (
        f"{STATE}.a.b",
        ["", "text", True, False, 0, -1, 1.5, 2**63 - 1, "x" * MAX_STATE_TEXT],
        [None, [], {}, {"a": 1}, float("inf"), float("nan"), "x" * (MAX_STATE_TEXT + 1), 2**64, -(10**30), b"x"],
    ),
    (f"{STATE}.{'k' * 64}", [1], [None]),
    (f"{STATE}.{'k' * 65}", [], [1]),
]


@pytest.mark.parametrize(("field", "right", "wrong"), TABLE, ids=[row[0][:40] for row in TABLE])
def test_every_field_has_its_range(field: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        body = body_with(field, value)
        assert CREATE.validate_python(body) == body
        assert WISH.validate_python(body) == body
    for value in wrong:
        body = body_with(field, value)
        assert not accepted(CREATE, body), str(value)[:80]
        assert not accepted(WISH, body), str(value)[:80]


@pytest.mark.parametrize(("field", "right", "wrong"), TABLE, ids=[row[0][:40] for row in TABLE])
def test_a_field_alone_is_checked_as_in_the_body(field: str, right: list[Any], wrong: list[Any]) -> None:
    check = leaf(tuple(field.split(".", 2)))
    if check is None:  # a map of its own, or no field at all
        assert field in (STATE, "workflow.tracing", f"{STATE}.{'k' * 65}")
        return
    for value in right:
        found = check.validate_python(value)
        assert (type(found), found) == (type(value), value)
    for value in wrong:
        assert not accepted(check, value), str(value)[:80]


@pytest.mark.parametrize(
    "field",
    ["nonsense", "workflow.isValid", "workflow.tracing.level", "expires_after.ttl", f"{UPLOAD}.max_size", "scope"],
)
def test_an_unknown_field_is_refused(field: str) -> None:
    path = tuple(field.split("."))
    body = unflatten({("user",): "u", ("workflow", "id"): "wf", path: "x"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        CREATE.validate_python(body)
    assert not accepted(WISH, body)
    assert leaf(path) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "u"},
        {"workflow": {"id": "wf"}},
        {"user": "u", "workflow": {}},
        {"user": "u", "workflow": {"id": "wf"}, "expires_after": {"seconds": 60}},
        {"user": "u", "workflow": {"id": "wf"}, "expires_after": {"anchor": "created_at"}},
        {"user": "u", "workflow": "wf"},
        {"user": "u", "workflow": {"id": "wf"}, "rate_limits": None},
        [],
        None,
    ],
)
def test_what_is_required_is_required(body: Any) -> None:
    assert not accepted(CREATE, body)


def test_a_wish_may_leave_everything_out() -> None:
    wishes: list[dict[str, Any]] = [{}, {"workflow": {}}, {"workflow": {"version": "1"}}, {"rate_limits": {}}]
    for wish in wishes:
        assert WISH.validate_python(wish) == wish


def test_the_leaves_are_the_documented_fields() -> None:
    assert sorted(dotted(path) for path in LEAVES) == sorted(
        [
            "user",
            "workflow.id",
            "workflow.version",
            "workflow.state_variables",
            "workflow.tracing.enabled",
            "expires_after.anchor",
            "expires_after.seconds",
            LIMIT,
            "chatkit_configuration.automatic_thread_titling.enabled",
            f"{UPLOAD}.enabled",
            f"{UPLOAD}.max_file_size",
            f"{UPLOAD}.max_files",
            "chatkit_configuration.history.enabled",
            "chatkit_configuration.history.recent_threads",
        ]
    )


def test_what_we_read_of_an_error_never_shows_the_value() -> None:
    for field in ("user", "workflow.id", LIMIT, f"{STATE}.a"):
        with pytest.raises(ValidationError) as error:
            CREATE.validate_python(body_with(field, ["hunter2"]))
        assert "hunter2" not in str(error.value.errors(include_input=False))


def test_flat_is_one_name_for_each_value() -> None:
    body = {"user": "u", "workflow": {"id": "wf", "state_variables": {"a.b": 1, "c": True}}, "rate_limits": {}}
    assert flatten(body) == {
        ("user",): "u",
        ("workflow", "id"): "wf",
        ("workflow", "state_variables", "a.b"): 1,
        ("workflow", "state_variables", "c"): True,
    }


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREE = st.recursive(
    st.dictionaries(st.text(max_size=3), LEAF, min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=3), inner | LEAF, min_size=1, max_size=3),
    max_leaves=10,
)


@given(TREE)
def test_flattened_and_back_is_the_same(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    assert unflatten(flatten(body)) == body == before


VALID = st.fixed_dictionaries(
    {
        "user": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        "workflow": st.fixed_dictionaries(
            {"id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)},
            optional={
                "state_variables": st.dictionaries(
                    st.text(min_size=1, max_size=9), st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
                )
            },
        ),
    },
    optional={"rate_limits": st.fixed_dictionaries({"max_requests_per_1_minute": st.integers(min_value=1)})},
)


@settings(max_examples=200)
@given(VALID)
def test_every_body_that_is_accepted_can_be_sent_as_it_is(body: Any) -> None:
    if accepted(CREATE, body):
        assert orjson.loads(orjson.dumps(body)) == body
