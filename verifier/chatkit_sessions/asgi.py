"""ASGI middleware: only live sessions come through, and what is streamed to them ends with them.

Every path is guarded but those in *open_paths*. Put a CORS middleware outside of this one: it answers preflights, which
carry no secret, and lets pages read the refusals.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any, Final

from chatkit_sessions.session import NotActive, Refused, UploadRefused, VerifiedSession
from chatkit_sessions.verifier import Verifier
from chatkit_sessions.watch import Watch

Headers = Collection[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE: Final = "chatkit_session"
OURS: Final = b"x-chatkit-"
"""Headers by which a proxy tells who is asking. Nobody else may."""
LONGEST: Final = 1024
"""Characters of a secret: no issuer's is nearly as long."""
ENVELOPE: Final = 64 * 1024
"""Bytes that a form may have around a file."""
LET_GO: Final = 1.0
"""Seconds that an app has to end once its stream was ended; nothing that it sends then goes out."""
LAST_WORDS: Final = (
    b"\n\ndata: "
    + json.dumps(
        {"type": "error", "code": "custom", "message": "This chat session has ended.", "allow_retry": False}
    ).encode()
    + b"\n\n"
)
"""The event with which ChatKit's protocol tells of an error."""


class SessionMiddleware:
    """See the module. Bodies sent to *upload_paths*, or below them, are bounded by what the session may upload.

    Where *tenants* are given, the sessions of others are not active here: a server that is one tenant's needs it.
    """

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        open_paths: Collection[str] = (),
        upload_paths: Collection[str] = (),
        tenants: Collection[str] | None = None,
    ) -> None:
        if isinstance(tenants, str):
            raise TypeError("tenants is a collection of names")
        self._app = app
        self._tenants = None if tenants is None else frozenset(tenants)
        self._verifier = verifier
        self._open = frozenset(open_paths)
        self._uploads = frozenset(upload_paths)
        self._watch = Watch(verifier.ended)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Verify and pass on, with the session in the state and the secret left out; or refuse."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"nobody guards {scope['type']} connections")
        inner = {**scope, "headers": [each for each in scope["headers"] if not _is_ours(each[0])]}
        if scope["path"] in self._open:
            await self._app(inner, receive, send)
            return
        gate = _Gate(send)
        try:
            session = await self._session(scope["headers"])
            if self._tenants is not None and session.tenant not in self._tenants:
                raise NotActive
            if self._uploads_to(scope):
                receive = _bounded(scope["headers"], receive, session, gate)
        except Refused as refused:
            await gate.refuse(refused)
            return
        inner["headers"] = [each for each in inner["headers"] if each[0].lower() != b"authorization"]
        inner["state"] = {**scope.get("state", {}), STATE: session}
        await self._answer(inner, receive, gate, session)

    def _uploads_to(self, scope: Scope) -> bool:
        """Whether it is an upload path, or below one, with or without what the app is mounted at.

        More than was meant is bounded, never less.
        """
        paths = (scope["path"], scope["path"].removeprefix(scope.get("root_path", "")))
        return any(path == each or path.startswith(f"{each}/") for each in self._uploads for path in paths)

    async def _session(self, headers: Headers) -> VerifiedSession:
        return await self._verifier.verify(secret_of(headers))

    async def _answer(self, scope: Scope, receive: Receive, gate: "_Gate", session: VerifiedSession) -> None:
        """Run the app until it has answered, or its session has ended."""
        over = asyncio.get_running_loop().create_future()
        unfollow = self._watch.follow(session.id, lambda: None if over.done() else over.set_result(None))
        answering = asyncio.ensure_future(self._app(scope, receive, gate.send))
        try:
            await asyncio.wait((answering, over), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            else:
                # Who doesn't read is not waited for: their connection is cut.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LET_GO):
                        await gate.end()
        finally:
            unfollow()
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,), timeout=LET_GO)
            with suppress(BaseException):
                answering.exception()  # told above, or of no interest any more


class UploadTooLarge(UploadRefused):
    """The body is larger than any file that the session may upload."""

    status = 413


class _Gate:
    """What the app sends goes out through here, until it is closed."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._finished = self._events = self._counted = False

    async def send(self, message: Message) -> None:
        if self._finished:
            return
        if message["type"] == "http.response.start":
            self._started = True
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            self._events = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            self._counted = b"content-length" in headers
        elif message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """End the answer: what the app still sends is dropped."""
        if not self._started:
            await self.refuse(NotActive())
        elif not self._finished:
            self._finished = True
            if self._counted:
                # Cut short, it must not look complete: the server closes the connection.
                raise ConnectionAbortedError("the session ended before its answer")
            last = LAST_WORDS if self._events else b""
            await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def refuse(self, refused: Refused) -> None:
        """Refuse in the app's place: what it still sends is dropped. Where it has begun to answer, that is cut."""
        if self._started:
            await self.end()
        else:
            self._started = self._finished = True
            await _refuse(self._send, refused)


def _is_ours(name: bytes) -> bool:
    # To many frameworks `X_ChatKit_User` is the same header.
    return name.lower().replace(b"_", b"-").startswith(OURS)


def secret_of(headers: Headers) -> str:
    """Return the bearer credential; an empty text, which is nobody's, where there isn't exactly one."""
    given = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, secret = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    return secret.strip() if scheme.lower() == "bearer" and len(secret) <= LONGEST else ""


def _bounded(headers: Headers, receive: Receive, session: VerifiedSession, gate: _Gate) -> Receive:
    """Return *receive* for an upload; raise `UploadRefused` where the session grants none, or none so large.

    A body that turns out to be larger than was told is refused at the gate, and to the app it looks broken off.
    """
    if not session.may_upload:
        raise UploadRefused
    left = session.max_file_bytes + ENVELOPE
    announced = dict(headers).get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > left:
        raise UploadTooLarge

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            await gate.refuse(UploadTooLarge())
            return {"type": "http.disconnect"}
        return message

    return bounded


async def _refuse(send: Send, refused: Refused) -> None:
    status, headers, body = refused.answer()
    named = {**headers, "content-length": str(len(body))}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
