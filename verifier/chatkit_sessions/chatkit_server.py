"""A server of the package `openai-chatkit` in which each session sees and does what it is granted.

class Chat(GrantedServer[VerifiedSession]):
async def respond(self, thread, input_user_message, context): ...

chat = Chat(MyStore(), MyFiles(), verifier=verifier, session_of=lambda context: context)
"""

from collections.abc import AsyncGenerator
from typing import Final

from chatkit.server import ChatKitServer, NonStreamingResult, StreamingResult
from chatkit.store import AttachmentStore, NotFoundError, Store, TContext
from chatkit.types import ChatKitReq, ErrorEvent, ItemsFeedbackReq
from pydantic import TypeAdapter

from chatkit_sessions.chatkit import GrantedAttachmentStore, GrantedStore, SessionOf
from chatkit_sessions.session import Refused
from chatkit_sessions.verifier import Verifier

REQUEST: Final[TypeAdapter[ChatKitReq]] = TypeAdapter(ChatKitReq)


class GrantedServer(ChatKitServer[TContext]):
    """A ChatKit server over both. Give it your own stores; `self.store` is theirs with the session's grants."""

    def __init__(
        self,
        store: Store[TContext],
        attachment_store: AttachmentStore[TContext] | None = None,
        *,
        verifier: Verifier,
        session_of: SessionOf[TContext],
    ) -> None:
        granted = GrantedStore(store, session_of)
        super().__init__(
            granted, attachment_store and GrantedAttachmentStore(attachment_store, granted, verifier, session_of)
        )

    async def process(
        self, request: str | bytes | bytearray, context: TContext
    ) -> StreamingResult | NonStreamingResult:
        """Process a request. What is refused at once is raised here: `NotFoundError`, `Refused`, `ValidationError`.

        What is refused later, in an answer that is streamed, is an error event in it.
        """
        asked = REQUEST.validate_json(request)
        if isinstance(asked, ItemsFeedbackReq):
            # The package asks no store about these ids.
            await self.store.load_thread(asked.params.thread_id, context)
            for item_id in asked.params.item_ids:
                await self.store.load_item(asked.params.thread_id, item_id, context)
        answer = await super().process(request, context)
        if isinstance(answer, NonStreamingResult):
            return answer
        events = answer.json_events
        try:
            first = await anext(events)
        except StopAsyncIteration:
            return answer
        return StreamingResult(self._told(first, events))

    async def _told(self, first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        try:
            yield first
            async for event in events:
                yield event
        except (NotFoundError, Refused) as refused:
            message = refused.message if isinstance(refused, Refused) else "What this refers to does not exist."
            yield b"data: " + self._serialize(ErrorEvent(message=message)) + b"\n\n"
