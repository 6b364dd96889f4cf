"""The routes that tell of the others. Both documents are made once, at start."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter
from starlette.routing import Route

from service.http import assets, backchannel, public, servers, starters, verify
from service.http.answers import to_json
from service.http.assets import Asset
from service.http.docs_page import POLICY, page
from service.http.openapi import document
from service.http.operation import Credential, Operation

ANY_OBJECT: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])

OPERATIONS: Final = (
    Operation(
        "GET",
        "/openapi.json",
        "openApi",
        "This listener as OpenAPI 3.1.",
        Credential.NONE,
        (),
        answer=ANY_OBJECT,
        cached=True,
    ),
    Operation(
        "GET",
        "/docs",
        "docs",
        "The routes and the refusals, for people.",
        Credential.NONE,
        (),
        answers="text/html",
        cached=True,
    ),
)
PUBLIC: Final[Sequence[Operation]] = (
    *public.OPERATIONS,
    *backchannel.OPERATIONS,
    *servers.OPERATIONS,
    *verify.OPERATIONS,
    *starters.OPERATIONS,
    *assets.OPERATIONS,
    *OPERATIONS,
)
"""All that the public listener answers."""


def described_routes() -> list[Route]:
    """Return the routing table."""
    return [asset.route() for asset in _assets()]


@cache
def _assets() -> tuple[Asset, ...]:
    return (
        Asset("/openapi.json", to_json(document(PUBLIC)), "application/json"),
        Asset("/docs", page(PUBLIC).encode(), "text/html; charset=utf-8", {"content-security-policy": POLICY}),
    )
