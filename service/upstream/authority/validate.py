"""Any JSON value → a valid create body, or the 400 that upstream would answer.

The shape and the ranges are `service.contract`'s. Here they only get upstream's wording, of which "Unknown
parameter" was seen on this path and the rest on OpenAI's other endpoints. It names the first mistake alone.
"""

from typing import Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.contract import CREATE, STATE_VARIABLES, CreateSession, dotted
from service.upstream.authority.wire import WireError

VERSION: Final = ("workflow", "version")

EXPECTED: Final = {
    "bool_type": "a boolean",
    "dict_type": "an object",
    "int_type": "an integer",
    "string_type": "a string",
}
"""Pydantic's type errors, by what they wanted."""

GOT: Final = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def valid_create(body: object) -> CreateSession:
    """Return *body* as a create body; raise a 400 `WireError` that names what is wrong with it.

    The version `latest` passes: upstream accepts it at create, though our own callers may not ask for it.
    """
    try:
        return CREATE.validate_python(body)
    except ValidationError as refused:
        errors = [error for error in refused.errors(include_url=False) if not _is_latest(error)]
    if errors:
        raise _wire_error(errors)
    # Only `latest` was refused, and strict validation changes no value: the body is its own result.
    return cast("CreateSession", body)


def _is_latest(error: ErrorDetails) -> bool:
    """Whether this is our own rule on versions, the only validator there that is not a type or a length."""
    return error["loc"] == VERSION and error["type"] == "value_error"


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    """Return the path in the body; pydantic appends `[key]` or a union's member below a state variable."""
    loc = error["loc"]
    below = len(STATE_VARIABLES)
    return loc[: below + 1] if loc[:below] == STATE_VARIABLES else loc


def _wire_error(errors: list[ErrorDetails]) -> WireError:
    place = _place(errors[0])
    here = [error for error in errors if _place(error) == place]
    # A union fails once per member: the member of the right type knows the better reason.
    best = next((error for error in here if not error["type"].endswith("_type")), here[0])
    if best["loc"][-1:] == ("[key]",):
        return _bad_name(best)
    return _bad_value(best, dotted(place))


def _bad_name(error: ErrorDetails) -> WireError:
    limits = error.get("ctx", {})
    param = dotted(STATE_VARIABLES)
    match error["type"]:
        case "string_too_long":
            most = limits["max_length"]
            code, why = "property_name_above_max_length", f"too long. Expected at most {most} characters"
        case "string_too_short":
            code, why = "property_name_below_min_length", "empty. Expected at least 1 character"
        case _:
            code, why = "invalid_property_name", "not a string"
    return WireError(400, f"Invalid property name in '{param}': the name is {why}.", param=param, code=code)


def _bad_value(error: ErrorDetails, name: str) -> WireError:
    got, limits = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            code, text = "unknown_parameter", f"Unknown parameter: '{name}'."
        case "missing":
            code, text = "missing_required_parameter", f"Missing required parameter: '{name}'."
        case "less_than_equal":
            code, text = "integer_above_max_value", _beyond(name, "above maximum", "<=", limits["le"], got)
        case "greater_than_equal":
            code, text = "integer_below_min_value", _beyond(name, "below minimum", ">=", limits["ge"], got)
        case "string_too_short":
            code = "empty_string"
            text = (
                f"Invalid '{name}': empty string. Expected a string with minimum length "
                f"{limits['min_length']}, but got an empty string instead."
            )
        case "string_too_long":
            code = "string_above_max_length"
            text = (
                f"Invalid '{name}': string too long. Expected a string with maximum length "
                f"{limits['max_length']}, but got a string with length {len(got)} instead."
            )
        case "too_long":
            code = "object_above_max_properties"
            text = (
                f"Invalid '{name}': too many properties. Expected an object with at most "
                f"{limits['max_length']} properties, but got an object with {len(got)} properties instead."
            )
        case "literal_error":
            # Upstream repeats the wrong value here; it may be somebody's secret.
            code, text = (
                "invalid_value",
                f"Invalid value for '{name}'. Supported values are: {limits['expected']}.",
            )
        case _:
            code, text = _wrong_type(error, name)
    return WireError(400, text, param=name or None, code=code)


def _beyond(name: str, where: str, sign: str, limit: int, got: int) -> str:
    return f"Invalid '{name}': integer {where} value. Expected a value {sign} {limit}, but got {got} instead."


def _wrong_type(error: ErrorDetails, name: str) -> tuple[str, str]:
    if not error["type"].endswith("_type"):
        return "invalid_value", f"Invalid value for '{name}'."
    is_state_value = len(_place(error)) > len(STATE_VARIABLES)
    wanted = "a string, a boolean or a number" if is_state_value else EXPECTED[error["type"]]
    got = GOT.get(type(error["input"]), "something else")
    place = f"'{name}'" if name else "the request body"
    return "invalid_type", f"Invalid type for {place}: expected {wanted}, but got {got} instead."
