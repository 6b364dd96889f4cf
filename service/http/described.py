"""The routes that tell of the others. Both are made once, at start, and cached by an ETag."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http import backchannel, public, servers, starters
from service.http.answers import to_json
from service.http.docs_page import POLICY, page
from service.http.openapi import document
from service.http.operation import Credential, Operation

CACHE: Final = "public, max-age=300"
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
    *starters.OPERATIONS,
    *OPERATIONS,
)
"""All that the public listener answers."""


@dataclass(frozen=True, slots=True)
class _Document:
    """One document, made once, at start."""

    body: bytes
    media_type: str
    headers: dict[str, str]

    async def answer(self, request: Request) -> Response:
        """Answer with the document, or that the caller's copy is still right (RFC 9110 §13.1.2)."""
        asked = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
        if tags & {self.headers["etag"], "*"}:
            return Response(status_code=304, headers=self.headers)
        return Response(self.body, 200, self.headers, self.media_type)


def described_routes(operations: Sequence[Operation] = PUBLIC) -> list[Route]:
    """Return the routing table."""
    documents = {
        "/openapi.json": _made(to_json(document(operations)), "application/json"),
        "/docs": _made(page(operations).encode(), "text/html", {"content-security-policy": POLICY}),
    }
    # Each has an endpoint of its own, by which the metrics tell them apart.
    return [Route(path, partial(each.answer), methods=["GET"]) for path, each in documents.items()]


def _made(body: bytes, media_type: str, headers: dict[str, str] | None = None) -> _Document:
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    common = {"etag": etag, "cache-control": CACHE, "x-content-type-options": "nosniff"}
    return _Document(body, media_type, {**common, **(headers or {})})
