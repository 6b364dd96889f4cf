"""JSON out, JSON in: bodies are read strictly and every mistake names its field."""

from collections.abc import Iterable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.contract import dotted
from service.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body; larger ones are 413."""

FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 16

T = TypeVar("T")


def to_json(value: Any) -> bytes:
    """Return *value* as JSON."""
    return orjson.dumps(value)


def json_answer(value: Any, *, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """Return an answer that no cache keeps: these answers carry secrets or somebody's sessions."""
    return Response(to_json(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


async def read_body(request: Request, shape: TypeAdapter[T], *, empty: T | None = None) -> T:
    """Return the JSON body as *shape*, or *empty* where there is no body (None: there must be one).

    Raises `UnsupportedMediaType`, or `InvalidRequest` that names the field.
    """
    raw = await read_raw(request)
    if not raw:
        if empty is None:
            raise InvalidRequest(detail="The body is missing")
        return empty
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"content type {media_type[:64]!r}")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(detail=f"The body is not JSON: line {error.lineno}, column {error.colno}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(detail="The body is not a JSON object")
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        raise _refusal(error, value) from None


async def read_raw(request: Request) -> bytes:
    """Return the body; raise `BodyTooLarge` as soon as it is known to be, told or not."""
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > MAX_BODY:
        raise BodyTooLarge(f"{told[:20]} bytes announced")
    if told == "0" and "transfer-encoding" not in request.headers:
        return b""  # nothing to wait for, as with most mints
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BodyTooLarge("more bytes sent than allowed")
    return bytes(body)


async def read_form(request: Request) -> list[tuple[str, str]]:
    """Return the form's fields; raise `InvalidRequest` where the body is none."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise InvalidRequest(f"content type {media_type[:64]!r}", detail=f"Send the body as {FORM}")
    raw = await read_raw(request)
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS)
    except ValueError:  # a byte that is no ASCII, a pair without =, too many
        raise InvalidRequest(detail="The body is not a form") from None


def only_field(form: Iterable[tuple[str, str]], name: str, *, default: str = "") -> str:
    """Return the field's one value; *default* where it is missing; what else is sent is the sender's own affair.

    Raises `InvalidRequest` where it is there twice, or is empty.
    """
    values = [value for each, value in form if each == name] or [default]
    if len(values) != 1 or not values[0]:
        raise InvalidRequest(detail=f"The form holds no {name}, or several", field=name)
    return values[0]


def _refusal(error: ValidationError, value: Any) -> InvalidRequest:
    mistakes = error.errors(include_input=False, include_url=False)
    first = mistakes[0]
    place = _place(first["loc"], value)
    field = dotted(place)
    if first["type"] == "extra_forbidden":
        return InvalidRequest(detail=f"Unknown field: {field}", field=field)
    if first["type"] == "missing":
        field = dotted((*place, str(first["loc"][-1])))
        return InvalidRequest(detail=f"Missing field: {field}", field=field)
    if len(first["loc"]) > len(place) and first["loc"][-1] != "[key]":
        # A value that fits no branch of a union: each branch complains of its own.
        return InvalidRequest(detail=f"{field}: Input should be text, a boolean or a number", field=field)
    return InvalidRequest(detail=f"{field}: {first['msg'].removeprefix('Value error, ')}", field=field)


def _place(loc: tuple[str | int, ...], value: Any) -> tuple[str, ...]:
    """Return the part of Pydantic's place that the caller wrote: a union adds the names of its branches."""
    place: list[str] = []
    for part in loc:
        if not isinstance(value, dict) or part not in value:
            break
        place.append(str(part)[:64])
        value = value[part]
    return tuple(place)
