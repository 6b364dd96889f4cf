"""The example's server with everything that a server may answer, so that no path of the protocol is left out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from chatkit.actions import Action
from chatkit.types import (
    AudioInput,
    ClientToolCallItem,
    FeedbackKind,
    StructuredInputFreeform,
    StructuredInputItem,
    SyncCustomActionResponse,
    ThreadItem,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    WidgetItem,
)
from chatkit.widgets import Card, Text
from server import Chat

from chatkit_sessions import VerifiedSession


class Full(Chat):
    """Keeps what it was called with."""

    pause = 0.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.called: list[tuple[str, str]] = []

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: VerifiedSession
    ) -> None:
        self.called.append((f"feedback {feedback} {len(item_ids)}", thread_id))

    async def transcribe(self, audio_input: AudioInput, context: VerifiedSession) -> TranscriptionResult:
        self.called.append(("transcribe", context.user))
        return TranscriptionResult(text=f"{len(audio_input.data)} bytes")

    async def action(
        self,
        thread: ThreadMetadata,
        action: Action[str, Any],
        sender: WidgetItem | None,
        context: VerifiedSession,
    ) -> AsyncIterator[ThreadStreamEvent]:
        self.called.append((f"action {action.type}", thread.id))
        async for event in self.respond(thread, None, context):
            yield event

    async def sync_action(
        self,
        thread: ThreadMetadata,
        action: Action[str, Any],
        sender: WidgetItem | None,
        context: VerifiedSession,
    ) -> SyncCustomActionResponse:
        self.called.append((f"sync_action {action.type}", thread.id))
        return SyncCustomActionResponse(updated_item=sender)


async def furnish(server: Full, thread_id: str, session: VerifiedSession) -> dict[str, str]:
    """Put one item of each kind that a browser may refer to into a thread; their ids by kind."""
    at: dict[str, Any] = {"thread_id": thread_id, "created_at": datetime.now(UTC)}
    question = StructuredInputFreeform(id="q1", question="Why?")
    items: dict[str, ThreadItem] = {
        "widget": WidgetItem(id=f"w_{thread_id}", widget=Card(children=[Text(value="hi")]), **at),
        "input": StructuredInputItem(id=f"s_{thread_id}", inputs=[question], **at),
        "tool": ClientToolCallItem(id=f"t_{thread_id}", call_id="c", name="look", arguments={}, **at),
    }
    for item in items.values():
        await server.store.add_thread_item(thread_id, item, session)
    return {kind: item.id for kind, item in items.items()}
