"""Whether a client secret is that of a live session, and whose: for the servers that people run themselves.

Only sessions of our own authority can be verified; OpenAI's are verified there.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter, with_config
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from chatkit_sessions.asgi import secret_of
from chatkit_sessions.record import session_id
from chatkit_sessions.redis import RedisVerifier
from chatkit_sessions.session import NotActive, Refused, TooManyRequests
from chatkit_sessions.wire import MOST_IDS, MOST_REQUESTS, headers_of, introspection
from service.contract import STRICT
from service.errors import (
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    NotFound,
    PolicyDenied,
    SessionNotActive,
    SessionRateLimited,
    StoreUnavailable,
)
from service.http.answers import FORM, json_answer, only_field, read_body, read_form
from service.http.operation import BY_BODY, Credential, Operation, Refusals
from service.http.shapes import CLOSED, Count, SessionWithoutSecret, UnixSeconds
from service.identity.authenticate import TENANT_HEADER

RIGHT: Final = "verify"
NUMBER: Final = f"[0-9]{{1,3}}|{MOST_REQUESTS}"
"""A number of requests. It has its length in it: int() raises at thousands of digits."""
VERIFY: Final = "/v1/chatkit/sessions/verify"
ENDED: Final = "/v1/chatkit/sessions/ended"
UPLOADS: Final = "/v1/chatkit/sessions/{session_id}/uploads"
AUTHORIZE: Final = "/v1/authorize"
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Envoy asks with the method of the request that it asks about."""

Size = Annotated[int, Field(ge=0, le=2**40)]


@with_config(STRICT)
class EndedQuestion(TypedDict):
    """Sessions that somebody streams to, or has verified a moment ago."""

    ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=MOST_IDS)]


@with_config(CLOSED)
class EndedAnswer(TypedDict):
    """Those of them that are live no more."""

    ended: list[str]


@with_config(STRICT)
class UploadQuestion(TypedDict):
    """A file that a session is about to upload, in bytes."""

    size: Size


@with_config(CLOSED)
class UploadAnswer(TypedDict):
    """Whether the session grants it. It is counted then."""

    granted: bool


@with_config(CLOSED)
class NotLive(TypedDict):
    """Unknown, expired, cancelled, malformed, or another tenant's: nobody is told which (RFC 7662 §2.2)."""

    active: Literal[False]


@with_config(CLOSED)
class LiveSession(TypedDict):
    """A live session, never its secret. `sub` is ChatKit's `user`, `requests` are what was counted."""

    active: Literal[True]
    token_type: Literal["chatkit_session"]
    sub: str
    exp: UnixSeconds
    tenant: str
    requests: Count
    session: SessionWithoutSecret


class TokenForm(TypedDict):
    """RFC 7662 §2.1. `requests` count against the session's limit: 1, or as many as are taken ahead; 0 looks only."""

    token: Annotated[str, Field(min_length=1)]
    requests: NotRequired[Annotated[str, Field(pattern=f"^({NUMBER})$")]]


ENDED_QUESTION: Final[TypeAdapter[EndedQuestion]] = TypeAdapter(EndedQuestion)
UPLOAD_QUESTION: Final[TypeAdapter[UploadQuestion]] = TypeAdapter(UploadQuestion)
INTROSPECTION: Final[TypeAdapter[Any]] = TypeAdapter(LiveSession | NotLive)
BY_KEY: Final[Refusals] = (MissingCredentials, InvalidToken, PolicyDenied, StoreUnavailable)

OPERATIONS: Final = (
    Operation(
        "POST",
        VERIFY,
        "verifySession",
        "Tell whether a client secret is that of a live session of the tenant, and whose (RFC 7662; right `verify`).",
        Credential.SERVICE,
        (*BY_KEY, *BY_BODY, SessionRateLimited),
        shape=TypeAdapter(TokenForm),
        media_type=FORM,
        body_required=True,
        answer=INTROSPECTION,
        example={"token": "ek_…"},
    ),
    Operation(
        "POST",
        ENDED,
        "endedSessions",
        "Tell which of these sessions are live no more (right `verify`): for whoever streams to them.",
        Credential.SERVICE,
        (*BY_KEY, *BY_BODY),
        shape=ENDED_QUESTION,
        body_required=True,
        answer=TypeAdapter(EndedAnswer),
        example={"ids": ["cksess_1"]},
    ),
    Operation(
        "POST",
        UPLOADS,
        "takeUpload",
        "Count one more file against what the session may upload (right `verify`).",
        Credential.SERVICE,
        (*BY_KEY, *BY_BODY),
        shape=UPLOAD_QUESTION,
        body_required=True,
        answer=TypeAdapter(UploadAnswer),
        example={"size": 1048576},
    ),
    *(
        Operation(
            method,
            path,
            f"{name}{method.title()}",
            "Forward authentication for proxies: 200 with who it is in `X-ChatKit-…` headers, or a refusal.",
            Credential.SECRET,
            (SessionNotActive, SessionRateLimited, StoreUnavailable, *more),
            answers=None,
        )
        for path, name, methods, more in (
            (AUTHORIZE, "authorize", ("GET",), ()),
            # No route has a line break in it: such a path is asked about in vain.
            (f"{AUTHORIZE}/{{path:path}}", "authorizePath", METHODS, (NotFound,)),
        )
        for method in methods
    ),
)


@dataclass(frozen=True, slots=True)
class VerifyApi:
    """The endpoints. *tenants_of* returns whose sessions a request may ask about, or raises a refusal."""

    verifier: RedisVerifier
    tenants_of: Callable[[Request], Collection[str]]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [
            Route(VERIFY, self.verify, methods=["POST"]),
            Route(ENDED, self.ended, methods=["POST"]),
            Route(UPLOADS, self.take_upload, methods=["POST"]),
            Route(AUTHORIZE, self.authorize, methods=["GET"]),
            # Envoy appends the path that it asks about. An endpoint of its own, by which the metrics tell them apart.
            Route(f"{AUTHORIZE}/{{path:path}}", partial(self.authorize), methods=[*METHODS]),
        ]

    async def verify(self, request: Request) -> Response:
        """Introspect a client secret."""
        tenants = self.tenants_of(request)
        form = await read_form(request)
        secret = only_field(form, "token")
        wanted = only_field(form, "requests", default="1")
        if not re.fullmatch(NUMBER, wanted):
            raise InvalidRequest(detail=f"requests is a number up to {MOST_REQUESTS}", field="requests")
        try:
            session, counted = await self.verifier.take(session_id(secret), int(wanted), tenants=tenants)
        except NotActive:
            return json_answer({"active": False})
        except Refused as refused:
            raise _refusal(refused) from refused
        return json_answer(introspection(session, counted))

    async def ended(self, request: Request) -> Response:
        """Tell which sessions have ended."""
        tenants = self.tenants_of(request)
        asked = await read_body(request, ENDED_QUESTION)
        try:
            ended = await self.verifier.ended(asked["ids"], tenants=tenants)
        except Refused as refused:
            raise _refusal(refused) from refused
        return json_answer({"ended": sorted(ended)})

    async def take_upload(self, request: Request) -> Response:
        """Count an upload."""
        tenants = self.tenants_of(request)
        asked = await read_body(request, UPLOAD_QUESTION)
        try:
            granted = await self.verifier.count_upload(tenants, request.path_params["session_id"], asked["size"])
        except Refused as refused:
            raise _refusal(refused) from refused
        return json_answer({"granted": granted})

    async def authorize(self, request: Request) -> Response:
        """Tell a proxy whether to let a request through, and who is asking."""
        try:
            secret = secret_of(request.headers.raw)
            session, _ = await self.verifier.take(session_id(secret), 1, tenants=_wanted(request))
        except Refused as refused:
            raise _refusal(refused) from refused
        return Response(b"", 200, {"cache-control": "no-store", **headers_of(session)})


def _wanted(request: Request) -> list[str] | None:
    """Return whose sessions the proxy lets through; None: everybody's. Who forges the header is let through less."""
    named = [name.strip() for line in request.headers.getlist(TENANT_HEADER) for name in line.split(",")]
    return named or None


def _refusal(refused: Refused) -> Exception:
    if isinstance(refused, TooManyRequests):
        return SessionRateLimited(retry_after=refused.retry_after)
    if isinstance(refused, NotActive):
        return SessionNotActive("unknown, expired or cancelled")
    return StoreUnavailable(f"Redis: {type(refused.__cause__).__name__}")
