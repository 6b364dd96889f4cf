"""What Pydantic has to say of a tenant file, in words that say what would be right."""

from collections.abc import Callable, Container, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from service.policy.model import TenantFile
from service.policy.shape import ORIGIN, RATE, TENANT_NAME
from service.policy.source import Mistake, Route

KINDS: Final = {
    "list_type": "should be a list: […]",
    "string_type": 'should be text; write a number in quotes: "7"',
    "int_type": "should be a whole number",
    "bool_type": "should be true or false",
    "dict_type": "should be a map: {…}",
    "model_type": "should be a map: {…}",
}
"""What a value of the wrong kind should be, by what Pydantic calls the mistake."""

PATTERNS: Final = {
    ORIGIN: "should be an origin: https://app.example.com, without a path or a slash; http:// is for localhost alone",
    RATE: "should be a number of mints in a time: 10/minute; second, minute, hour, day",
    TENANT_NAME: "should be up to 63 lower-case letters, digits, - and _",
}


def explained(
    error: ValidationError, places: Container[Route], mistake: Callable[[Route, str], Mistake]
) -> list[Mistake]:
    """Return a mistake for each complaint; *places* are the routes that stand in a file."""
    mistakes = []
    for each in error.errors(include_input=False, include_url=False):
        route = _written(tuple(each["loc"]), each["type"], places)
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = f"unknown key `{route[-1]}`{_meant(str(route[-1]), route)}"
        elif each["type"] == "missing":
            message = f"`{route[-1]}` is missing"
        elif each["type"] != "value_error" and (name := _name(route)):
            message = f"`{name}`: {plain(each)}"
        mistakes.append(mistake(route, message))
    return mistakes


def _written(loc: tuple[str | int, ...], kind: str, places: Container[Route]) -> Route:
    """Return the part of Pydantic's place that stands in a file: a union adds the names of its branches."""
    route: Route = ()
    for part in loc:
        if (*route, part) in places or (part == loc[-1] and kind == "missing"):
            route = (*route, part)
    return route


def plain(complaint: Mapping[str, Any]) -> str:
    """Return what a value should be; an example says more than a pattern."""
    message = str(complaint["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    pattern = complaint.get("ctx", {}).get("pattern", "")
    return KINDS.get(complaint["type"]) or PATTERNS.get(pattern) or message[0].lower() + message[1:]


def _name(route: Route) -> str | None:
    return next((part for part in reversed(route) if isinstance(part, str)), None)


def _meant(key: str, route: tuple[str | int, ...]) -> str:
    """Return a hint at the known key that *key* resembles."""
    shape: Any = TenantFile
    for part in route[:-1]:
        if isinstance(part, str) and hasattr(shape, "model_fields") and part in shape.model_fields:
            shape = _inner_model(shape.model_fields[part].annotation)
    near = get_close_matches(key, getattr(shape, "model_fields", {}), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _inner_model(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _inner_model(inner)
        if found is not None:
            return found
    return None
