"""What is the same bytes for everybody: the module `client.js` that pages load, and its types."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.cors import OPEN
from service.http.operation import Credential, Operation

FRESH_FOR: Final = 300
"""Seconds that a browser uses its copy unasked: as long as a page with a newer integrity value may not load it."""


OPERATIONS: Final = (
    Operation(
        "GET",
        "/v1/client.js",
        "clientModule",
        "The module that pages import.",
        Credential.NONE,
        (),
        answers="text/javascript",
        cached=True,
    ),
    Operation(
        "GET",
        "/v1/client.d.ts",
        "clientTypes",
        "Its types, for TypeScript.",
        Credential.NONE,
        (),
        answers="text/plain",
        cached=True,
    ),
)


class Asset:
    """One document, with an entity tag and the value that `integrity` takes."""

    def __init__(self, path: str, content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.content = content
        self.integrity = "sha384-" + base64.b64encode(hashlib.sha384(self.content).digest()).decode()
        self.etag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        self._media_type = media_type
        self._headers = {
            "etag": self.etag,
            "cache-control": f"public, max-age={FRESH_FOR}, must-revalidate",
            # Any page may load it; to check `integrity` a page must be let read it. There is nothing secret in it.
            "access-control-allow-origin": "*",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        }

    async def answer(self, request: Request) -> Response:
        """Return the document, or 304 where the caller has it (RFC 9110 §13.1.2)."""
        request.scope[OPEN] = True
        known = {
            tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")
        }
        if known & {self.etag, "*"}:
            return Response(None, 304, self._headers)
        return Response(self.content, 200, self._headers, self._media_type)

    def route(self) -> Route:
        """Return its place in the routing table."""
        return Route(self.path, self.answer, methods=["GET"])


def browser_module() -> Asset:
    """Return the module that pages import."""
    return _shipped("client.js", "text/javascript; charset=utf-8")


def asset_routes() -> list[Route]:
    """Return the routes of everything that pages load."""
    # A type of its own has TypeScript none that browsers know; as text it is shown.
    return [browser_module().route(), _shipped("client.d.ts", "text/plain; charset=utf-8").route()]


def _shipped(name: str, media_type: str) -> Asset:
    return Asset(f"/v1/{name}", (files("service.http") / "browser" / name).read_bytes(), media_type)
