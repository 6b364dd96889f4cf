"""The create table, row by row: what the authority grants, refuses and fills in."""

import re
from typing import Any

import pytest

from service.upstream.authority.sessions import Authority
from service.upstream.authority.wire import WireError

PROJECT = "proj_acme"
MEBIBYTES_10 = 10 * 1024 * 1024


def wishing(field: str | None = None, value: object = None) -> dict[str, Any]:
    """The smallest create body, with *value* at the dotted *field*."""
    body: dict[str, Any] = {"user": "acme:ada", "workflow": {"id": "wf_support"}}
    if field is None:
        return body
    *parents, name = field.split(".")
    place = body
    for parent in parents:
        place = place.setdefault(parent, {})
    if parents == ["expires_after"]:
        place |= {"anchor": "created_at", "seconds": 600}
    place[name] = value
    return body


def at(session: dict[str, Any], field: str) -> Any:
    for name in field.split("."):
        session = session[name]
    return session


async def refusal(authority: Authority, body: object) -> WireError:
    with pytest.raises(WireError) as refused:
        await authority.create(PROJECT, body)
    assert await authority.sessions() == []
    return refused.value


async def test_defaults_are_upstreams(authority: Authority) -> None:
    session = await authority.create(PROJECT, wishing())
    assert re.fullmatch(r"cksess_[0-9a-f]{32,}", session.pop("id"))
    assert re.fullmatch(r"ek_mint_[A-Za-z0-9_-]{43}", session.pop("client_secret"))
    assert session == {
        "object": "chatkit.session",
        "status": "active",
        "expires_at": 1_800_000_600,
        "user": "acme:ada",
        "workflow": {
            "id": "wf_support",
            "version": None,
            "state_variables": None,
            "tracing": {"enabled": True},
        },
        "rate_limits": {"max_requests_per_1_minute": 10},
        "max_requests_per_1_minute": 10,
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": True},
            "file_upload": {"enabled": False, "max_file_size": 512, "max_files": 10},
            "history": {"enabled": True, "recent_threads": None},
        },
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "u"),
        ("user", "u" * 512),
        ("workflow.id", "w"),
        ("workflow.version", "2024-10-01T00:00:00.000Z"),
        ("workflow.version", "latest"),
        ("workflow.tracing.enabled", False),
        ("workflow.state_variables", {}),
        ("workflow.state_variables", {"k" * 64: "", "yes": True, "whole": 3, "part": 2.5, "zero": 0}),
        ("rate_limits.max_requests_per_1_minute", 1),
        ("rate_limits.max_requests_per_1_minute", 100_000),
        ("chatkit_configuration.automatic_thread_titling.enabled", False),
        ("chatkit_configuration.file_upload.enabled", True),
        ("chatkit_configuration.file_upload.max_file_size", 1),
        ("chatkit_configuration.file_upload.max_file_size", 512),
        ("chatkit_configuration.file_upload.max_files", 1),
        ("chatkit_configuration.history.enabled", False),
        ("chatkit_configuration.history.recent_threads", 1),
    ],
)
async def test_a_wish_within_the_create_table_is_granted_as_it_is(
    authority: Authority, field: str, value: object
) -> None:
    session = await authority.create(PROJECT, wishing(field, value))
    assert at(session, field) == value
    assert session["max_requests_per_1_minute"] == session["rate_limits"]["max_requests_per_1_minute"]
    secret = session.pop("client_secret")
    assert await authority.find(session["id"]) == session
    assert secret


@pytest.mark.parametrize("seconds", [1, 600])
async def test_life_counts_from_creation(authority: Authority, seconds: int) -> None:
    session = await authority.create(PROJECT, wishing("expires_after.seconds", seconds))
    assert session["expires_at"] == 1_800_000_000 + seconds


async def test_one_setting_leaves_its_neighbours_at_their_defaults(authority: Authority) -> None:
    session = await authority.create(PROJECT, wishing("chatkit_configuration.file_upload.enabled", value=True))
    uploads = session["chatkit_configuration"]["file_upload"]
    assert uploads == {"enabled": True, "max_file_size": 512, "max_files": 10}


async def test_state_variables_are_granted_up_to_their_limits(authority: Authority) -> None:
    most = {f"v{n}": n for n in range(63)} | {"long": "x" * MEBIBYTES_10}
    session = await authority.create(PROJECT, wishing("workflow.state_variables", most))
    found = await authority.find(session["id"])
    assert found
    assert found["workflow"]["state_variables"] == most


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("user", "", "empty_string"),
        ("user", "u" * 513, "string_above_max_length"),
        ("user", 7, "invalid_type"),
        ("user", None, "invalid_type"),
        ("workflow", "wf_support", "invalid_type"),
        ("workflow.id", "", "empty_string"),
        ("workflow.id", None, "invalid_type"),
        ("workflow.version", "", "empty_string"),
        ("workflow.version", 1, "invalid_type"),
        ("workflow.tracing.enabled", 1, "invalid_type"),
        ("workflow.state_variables", None, "invalid_type"),
        ("workflow.state_variables", ["a"], "invalid_type"),
        ("expires_after.seconds", 0, "integer_below_min_value"),
        ("expires_after.seconds", 601, "integer_above_max_value"),
        ("expires_after.seconds", True, "invalid_type"),
        ("expires_after.seconds", 60.0, "invalid_type"),
        ("expires_after.seconds", "600", "invalid_type"),
        ("expires_after.anchor", "last_active_at", "invalid_value"),
        ("rate_limits.max_requests_per_1_minute", 0, "integer_below_min_value"),
        ("rate_limits.max_requests_per_1_minute", True, "invalid_type"),
        ("chatkit_configuration.automatic_thread_titling.enabled", "true", "invalid_type"),
        ("chatkit_configuration.file_upload.enabled", 1, "invalid_type"),
        ("chatkit_configuration.file_upload.max_file_size", 0, "integer_below_min_value"),
        ("chatkit_configuration.file_upload.max_file_size", 513, "integer_above_max_value"),
        ("chatkit_configuration.file_upload.max_files", 0, "integer_below_min_value"),
        ("chatkit_configuration.history.enabled", "yes", "invalid_type"),
        ("chatkit_configuration.history.recent_threads", 0, "integer_below_min_value"),
        ("workflow.isValid", True, "unknown_parameter"),
        ("scope", {}, "unknown_parameter"),
        ("chatkit_configuration.history.pinned", 1, "unknown_parameter"),
    ],
)
async def test_a_wish_outside_the_create_table_is_refused_by_name(
    authority: Authority, field: str, value: object, code: str
) -> None:
    error = await refusal(authority, wishing(field, value))
    assert (error.status, error.type, error.code, error.param) == (400, "invalid_request_error", code, field)
    assert f"'{field}'" in error.message


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (wishing("workflow.isValid", 1), "workflow.isValid", "Unknown parameter: 'workflow.isValid'."),
        (
            wishing("expires_after.seconds", 900),
            "expires_after.seconds",
            (
                "Invalid 'expires_after.seconds': integer above maximum value. "
                "Expected a value <= 600, but got 900 instead."
            ),
        ),
        (
            wishing("rate_limits.max_requests_per_1_minute", -1),
            "rate_limits.max_requests_per_1_minute",
            (
                "Invalid 'rate_limits.max_requests_per_1_minute': integer below minimum value. "
                "Expected a value >= 1, but got -1 instead."
            ),
        ),
        (
            wishing("expires_after.seconds", "soon"),
            "expires_after.seconds",
            "Invalid type for 'expires_after.seconds': expected an integer, but got a string instead.",
        ),
        (
            wishing("user", ""),
            "user",
            ("Invalid 'user': empty string. Expected a string with minimum length 1, but got an empty string instead."),
        ),
        (
            wishing("user", "u" * 600),
            "user",
            (
                "Invalid 'user': string too long. Expected a string with maximum length 512, "
                "but got a string with length 600 instead."
            ),
        ),
        (
            wishing("expires_after.anchor", "sk-secret"),
            "expires_after.anchor",
            "Invalid value for 'expires_after.anchor'. Supported values are: 'created_at'.",
        ),
        ([], None, "Invalid type for the request body: expected an object, but got an array instead."),
        (None, None, "Invalid type for the request body: expected an object, but got null instead."),
    ],
)
async def test_refusals_are_worded_as_upstreams(
    authority: Authority, body: object, param: str | None, message: str
) -> None:
    error = await refusal(authority, body)
    assert (error.message, error.param) == (message, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "user"),
        ({"workflow": {"id": "wf"}}, "user"),
        ({"user": "ada"}, "workflow"),
        ({"user": "ada", "workflow": {}}, "workflow.id"),
        (wishing() | {"expires_after": {"seconds": 60}}, "expires_after.anchor"),
        (wishing() | {"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
    ],
)
async def test_what_is_required_is_asked_for_by_name(authority: Authority, body: object, param: str) -> None:
    error = await refusal(authority, body)
    assert error.message == f"Missing required parameter: '{param}'."
    assert (error.status, error.param, error.code) == (400, param, "missing_required_parameter")


NESTED = "Invalid type for 'workflow.state_variables.{}': expected a string, a boolean or a number, but got {} instead."


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [("plan", {"tier": "pro"}, "an object"), ("[key]", [1], "an array"), ("bool", None, "null")],
)
async def test_a_state_variable_that_is_no_scalar_is_refused_by_its_own_name(
    authority: Authority, name: str, value: object, got: str
) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {name: value}))
    assert error.message == NESTED.format(name, got)
    assert (error.param, error.code) == (f"workflow.state_variables.{name}", "invalid_type")


async def test_a_state_variable_with_too_long_a_text_is_refused_for_its_length(authority: Authority) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {"bio": "x" * (MEBIBYTES_10 + 1)}))
    assert (error.param, error.code) == ("workflow.state_variables.bio", "string_above_max_length")
    assert "xxx" not in error.message


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_state_variable_that_json_cannot_say_is_refused(authority: Authority, number: float) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {"n": number}))
    assert (error.param, error.code) == ("workflow.state_variables.n", "invalid_value")


async def test_an_integer_wider_than_json_readers_take_is_refused(authority: Authority) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {"n": 2**64}))
    assert (error.status, error.code) == (400, "invalid_value")


async def test_more_than_64_state_variables_are_refused(authority: Authority) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {str(n): n for n in range(65)}))
    assert error.code == "object_above_max_properties"
    assert error.message == (
        "Invalid 'workflow.state_variables': too many properties. Expected an object with at most 64 "
        "properties, but got an object with 65 properties instead."
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [("k" * 65, "property_name_above_max_length"), ("", "property_name_below_min_length")],
)
@pytest.mark.parametrize("value", ["fine", ["not fine"]])
async def test_a_state_variables_name_has_1_to_64_characters(
    authority: Authority, name: str, code: str, value: object
) -> None:
    error = await refusal(authority, wishing("workflow.state_variables", {name: value}))
    assert (error.param, error.code) == ("workflow.state_variables", code)


async def test_latest_hides_no_other_mistake(authority: Authority) -> None:
    body = wishing("workflow.version", "latest") | {"expires_after": {"anchor": "created_at", "seconds": 601}}
    error = await refusal(authority, body)
    assert error.param == "expires_after.seconds"
