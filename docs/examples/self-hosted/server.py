"""A ChatKit server of your own behind chatkit-mint's sessions. No model: it repeats what it is told, word by word.

`README.md` beside it says how to run it. A server of yours has an agent in `respond` and a database of its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from chatkit.server import StreamingResult
from chatkit.store import NotFoundError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
)
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from stores import Files, SqliteStore

from chatkit_sessions import Refused, SessionMiddleware, VerifiedSession, Verifier
from chatkit_sessions.asgi import App
from chatkit_sessions.chatkit_server import GrantedServer
from chatkit_sessions.forwarded import ForwardedMiddleware
from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.redis import RedisVerifier

PAGE: Final = Path(__file__).with_name("index.html")
LONGEST: Final = 2 * 1024 * 1024
"""Bytes of one ChatKit request."""
UPLOADS: Final = {"enabled": True, "max_file_size": 512}
GRANTS: Final = {"file_upload": UPLOADS, "history": {"enabled": True, "recent_threads": None}}
"""Behind a proxy, whose headers don't say it. The verifier is asked about each file all the same."""


class Chat(GrantedServer[VerifiedSession]):
    """The context of a request is its session."""

    pause = 0.1
    """Seconds between two words."""

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: VerifiedSession
    ) -> AsyncIterator[ThreadStreamEvent]:
        said = " ".join(part.text for part in input_user_message.content) if input_user_message else "nothing"
        identity = self.store.generate_item_id("message", thread, context)
        answer = AssistantMessageItem(id=identity, thread_id=thread.id, created_at=datetime.now(UTC), content=[])
        yield ThreadItemAddedEvent(item=answer)
        empty = AssistantMessageContentPartAdded(content_index=0, content=AssistantMessageContent(text=""))
        yield ThreadItemUpdatedEvent(item_id=identity, update=empty)
        words = [f"{word} " for word in f"{context.user} said: {said}".split()]
        for word in words:
            delta = AssistantMessageContentPartTextDelta(content_index=0, delta=word)
            yield ThreadItemUpdatedEvent(item_id=identity, update=delta)
            await asyncio.sleep(self.pause)
        text = AssistantMessageContent(text="".join(words))
        yield ThreadItemDoneEvent(item=answer.model_copy(update={"content": [text]}))


def create_app(chat: Chat, files: Files) -> Starlette:
    """Return the app without its guard, which puts the session of each request into its state."""

    async def converse(request: Request) -> Response:
        answer = await chat.process(await _read(request, LONGEST), request.state.chatkit_session)
        if isinstance(answer, StreamingResult):
            return StreamingResponse(answer, media_type="text/event-stream", headers={"cache-control": "no-store"})
        return Response(answer.json, media_type="application/json", headers={"cache-control": "no-store"})

    async def upload(request: Request) -> Response:
        session = request.state.chatkit_session
        attachment = await chat.store.load_attachment(request.query_params.get("id", ""), session)
        size = (attachment.metadata or {})["size"]
        body = await _read(request, size)
        if attachment.upload_descriptor is None or len(body) != size:
            raise HTTPException(409)
        (files.folder / attachment.id).write_bytes(body)
        await chat.store.save_attachment(attachment.model_copy(update={"upload_descriptor": None}), session)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", lambda _: FileResponse(PAGE)),
            Route("/chatkit", converse, methods=["POST"]),
            Route("/upload", upload, methods=["PUT"]),
        ],
        exception_handlers=dict.fromkeys((Refused, NotFoundError, NotImplementedError, ValidationError), _fail),
    )


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413)
    return bytes(body)


async def _fail(_: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        status, headers, body = error.answer()
        return Response(body, status, headers)
    status = {NotFoundError: 404, NotImplementedError: 501}.get(type(error), 400)
    return JSONResponse({"code": type(error).__name__}, status)


def verifier_of(environ: Mapping[str, str]) -> Verifier:
    """Return the verifier: in process where Redis is named, else over HTTP."""
    if url := environ.get("CHAT_REDIS_URL"):
        return RedisVerifier(url)
    return HTTPVerifier(environ["CHAT_MINT_URL"], environ["CHAT_MINT_KEY"])


def guarded(environ: Mapping[str, str], verifier: Verifier) -> App:
    """Return the whole, with CORS outside of the guard."""
    folder = Path(environ.get("CHAT_DIR", "var/chat"))
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder, environ.get("CHAT_URL", "http://127.0.0.1:8000") + "/upload")
    chat = Chat(SqliteStore(folder / "chat.sqlite"), files, verifier=verifier, session_of=lambda session: session)
    chat.pause = float(environ.get("CHAT_PAUSE", "0.1"))
    guard = partial(ForwardedMiddleware, grants=GRANTS) if environ.get("CHAT_BEHIND_PROXY") else SessionMiddleware
    inside: App = guard(create_app(chat, files), verifier, open_paths=["/"], upload_paths=["/upload"])
    origins, headers = environ.get("CHAT_ORIGINS", "").split(), ["authorization", "content-type"]
    return CORSMiddleware(inside, origins, ["POST", "PUT"], headers, expose_headers=["retry-after"])


if __name__ == "__main__":
    port = int(os.environ.get("CHAT_PORT", "8000"))
    # Without the timeout, streams that go on would hold it up as it ends.
    uvicorn.run(guarded(os.environ, verifier_of(os.environ)), port=port, timeout_graceful_shutdown=3)
