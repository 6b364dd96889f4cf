"""`GET /openapi.json`: OpenAPI 3.1 of the public listener, made of the types that validate and of the refusals."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from service import __version__
from service.errors import RateLimited, Refusal, TooManyLiveSessions, Unauthorized
from service.http.operation import Credential, Operation
from service.http.problems import problem_shape
from service.http.shapes import LOGOUT_PROBLEM, PROBLEM, SDK_PROBLEM, STARTER_PROBLEM
from service.identity.authenticate import TENANT_HEADER
from service.identity.visitors import cookie_name

SCHEMAS: Final = "#/components/schemas/{model}"

SECURITY: Final[Mapping[Credential, Sequence[Mapping[str, Sequence[str]]]]] = {
    Credential.USER: [{"accessToken": []}, {"tokenCookie": []}, {"visitorCookie": []}],
    Credential.SERVICE: [{"serviceKey": []}],
    Credential.SECRET: [{"clientSecret": []}],
    Credential.LOGOUT_TOKEN: [],
    Credential.NONE: [],
}
SCHEMES: Final = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The user's access token, of an issuer that the tenant trusts.",
    },
    "tokenCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "the-tenants-own",
        "description": "The access token in the cookie that the tenant's file names, from pages of its origins alone.",
    },
    "visitorCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": cookie_name("TENANT"),
        "description": "Set by a visitor's first mint, which comes without; from pages of the tenant's origins alone.",
    },
    "serviceKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "cmk_…",
        "description": "A key of the tenant's `service_keys`, for servers.",
    },
    "clientSecret": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "ek_…",
        "description": "The client secret of a session of our own authority.",
    },
}
PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "session_id": {"description": "The session's id.", "schema": {"type": "string", "minLength": 1}},
    "tenant": {
        "description": "The tenant's name.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
    },
    "subject": {
        "description": "The user's subject, percent-encoded; it may hold slashes.",
        "schema": {"type": "string", "minLength": 1},
    },
    "path": {"description": "The path that is asked about.", "schema": {"type": "string", "minLength": 1}},
}
_TEXT: Final = {"type": "string"}
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "X-Request-Id": {"description": "Finds the request in the service's log.", "required": True, "schema": _TEXT},
    "Cache-Control": {"description": "Whether it may be kept.", "required": True, "schema": _TEXT},
    "ETag": {"description": "For `If-None-Match`.", "required": True, "schema": _TEXT},
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "RFC 6750 §3.", "required": True, "schema": _TEXT},
    "RateLimit": {"description": "What is left in each window, and the seconds until it is full.", "schema": _TEXT},
    "RateLimit-Policy": {"description": "The windows: requests (q) in seconds (w).", "schema": _TEXT},
}


class _Untitled(GenerateJsonSchema):
    """Titles made of field names say nothing that the names don't."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of *operations*."""
    bodies = [each for op in operations for each in (op.shape, op.answer) if each is not None]
    adapters = {id(each): each for each in (*bodies, PROBLEM, SDK_PROBLEM, STARTER_PROBLEM, LOGOUT_PROBLEM)}
    references, schemas = TypeAdapter.json_schemas(
        [(key, "validation", adapter) for key, adapter in adapters.items()],
        ref_template=SCHEMAS,
        schema_generator=_Untitled,
    )
    by_adapter = {key: reference for (key, _), reference in references.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, by_adapter)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatkit-mint",
            "version": __version__,
            "description": "Mints short-lived ChatKit sessions for users that it knows, and ends them on logout.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "headers": HEADERS, "securitySchemes": SCHEMES},
    }


def _operation(operation: Operation, schemas: Mapping[int, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": SECURITY[operation.credential],
        "responses": {
            **_success(operation, schemas),
            **{
                str(status): _refused(status, list(kinds), schemas[id(problem_shape(operation.path))])
                for status, kinds in groupby(operation.possible, key=lambda kind: kind.status)
            },
        },
    }
    if parameters := _parameters(operation):
        told["parameters"] = parameters
    if operation.shape is not None:
        content: dict[str, Any] = {"schema": schemas[id(operation.shape)]}
        if operation.example is not None:
            content["example"] = operation.example
        told["requestBody"] = {"required": operation.body_required, "content": {operation.media_type: content}}
    return told


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    named = [name for name in PARAMETERS if f"{{{name}}}" in operation.template]
    parameters = [{"name": name, "in": "path", "required": True, **PARAMETERS[name]} for name in named]
    if operation.credential is Credential.USER:
        described = "Chooses the tenant, where the caller fits several."
        parameters.append({"name": TENANT_HEADER, "in": "header", "description": described, "schema": _TEXT})
    if operation.credential is Credential.SECRET:
        described = (
            "Whose sessions are let through: tenants, separated by commas. Set it at the proxy; without, everybody's."
        )
        parameters.append({"name": TENANT_HEADER, "in": "header", "description": described, "schema": _TEXT})
    if operation.cached:
        described = "The ETag of the copy at hand."
        parameters.append({"name": "If-None-Match", "in": "header", "description": described, "schema": _TEXT})
    return parameters


def _success(operation: Operation, schemas: Mapping[int, Any]) -> dict[str, Any]:
    headers = ["X-Request-Id", "Cache-Control"]
    if operation.minting:
        headers += ["RateLimit", "RateLimit-Policy"]
    if operation.cached:
        headers.append("ETag")
    answer: dict[str, Any] = {"description": "Done." if operation.answers is None else "The answer."}
    if operation.answers is not None:
        schema = {} if operation.answer is None else {"schema": schemas[id(operation.answer)]}
        answer["content"] = {operation.answers: schema}
    answers = {"200": {**answer, "headers": _headers(headers)}}
    if operation.cached:
        answers["304"] = {"description": "The copy at hand is still right.", "headers": _headers(headers)}
    return answers


def _refused(status: int, kinds: Sequence[type[Refusal]], shape: Mapping[str, Any]) -> dict[str, Any]:
    headers = ["X-Request-Id", "Cache-Control"]
    if all(kind.default_retry_after is not None for kind in kinds):
        headers.append("Retry-After")
    if all(issubclass(kind, Unauthorized) for kind in kinds):
        headers.append("WWW-Authenticate")
    if any(issubclass(kind, RateLimited | TooManyLiveSessions) for kind in kinds):
        headers += ["RateLimit", "RateLimit-Policy"]
    narrowed = {"status": {"const": status}, "code": {"enum": [kind.code for kind in kinds]}}
    schema = {"allOf": [shape, {"type": "object", "properties": narrowed}]}
    said = "\n".join(f"* `{kind.code}`: {kind.public}" for kind in kinds)
    return {
        "description": f"{HTTPStatus(status).phrase}\n\n{said}",
        "headers": _headers(headers),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
