"""What a session grants, enforced in front of any Store and AttachmentStore of the package `openai-chatkit`.

`chatkit_sessions.chatkit_server` puts both into a server. Threads and attachments belong to the tenant and user of the
session, who are written into their `metadata` as they are saved for the first time. For everybody else they do not
exist; where nobody is written there, for everybody.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

from chatkit.store import AttachmentStore, NotFoundError, Store, StoreItemType, TContext, default_generate_id
from chatkit.types import (
    Attachment,
    AttachmentCreateParams,
    Page,
    ThreadItem,
    ThreadMetadata,
)

from chatkit_sessions.session import UploadRefused, VerifiedSession
from chatkit_sessions.verifier import Verifier

OWNER: Final = "chatkit_sessions_owner"
"""The name in `metadata`."""
MOST_LISTED: Final = 100
"""Threads in one page, whatever is asked for."""
MOST_PAGES: Final = 50
"""Pages that are read for one, where the store lists other people's threads among them."""

SessionOf = Callable[[TContext], VerifiedSession]


def owner_of(session: VerifiedSession) -> dict[str, str]:
    """Return what is written into the metadata of what is the session's user's."""
    return {"tenant": session.tenant, "user": session.user}


def stamped(attachment: Attachment, session: VerifiedSession) -> Attachment:
    """Return an attachment that belongs to the session's user."""
    return attachment.model_copy(update={"metadata": {**(attachment.metadata or {}), OWNER: owner_of(session)}})


class GrantedStore(Store[TContext]):
    """A store within which each user sees what is theirs, and as much of their history as the session grants.

    Where history is off no thread is listed; one whose id a page has goes on. Of the last *n*, the others don't exist
    either. The store within should list the user's threads alone: what else it lists is read and left out.
    """

    def __init__(self, store: Store[TContext], session_of: SessionOf[TContext]) -> None:
        self._store = store
        self._session_of = session_of

    def generate_thread_id(self, context: TContext) -> str:
        """Return the store's own kind of id; where that is the package's, of 32 random bits, a longer one."""
        if type(self._store).generate_thread_id is Store.generate_thread_id:
            return _longer(default_generate_id("thread"))
        return self._store.generate_thread_id(context)

    def generate_item_id(self, item_type: StoreItemType, thread: ThreadMetadata, context: TContext) -> str:
        """Do as `generate_thread_id` does."""
        if type(self._store).generate_item_id is Store.generate_item_id:
            return _longer(default_generate_id(item_type))
        return self._store.generate_item_id(item_type, thread, context)

    async def load_thread(self, thread_id: str, context: TContext) -> ThreadMetadata:
        """Load a thread that the session may see."""
        thread = await self._mine(thread_id, context)
        most = self._session_of(context).recent_threads
        if most and thread_id not in {each.id for each in await self._newest(most, context)}:
            raise NotFoundError(thread_id)
        return thread

    async def save_thread(self, thread: ThreadMetadata, context: TContext) -> None:
        """Save a thread of the user's, or a new one, which it becomes."""
        try:
            held = await self._store.load_thread(thread.id, context)
        except NotFoundError:
            pass
        else:
            self._check(held.id, held.metadata, context)
        metadata = {**thread.metadata, OWNER: owner_of(self._session_of(context))}
        await self._store.save_thread(thread.model_copy(update={"metadata": metadata}), context)

    async def delete_thread(self, thread_id: str, context: TContext) -> None:
        """Delete a thread that the session may see."""
        await self.load_thread(thread_id, context)
        await self._store.delete_thread(thread_id, context)

    async def load_threads(self, limit: int, after: str | None, order: str, context: TContext) -> Page[ThreadMetadata]:
        """Load a page of what the session may see."""
        limit = min(max(limit, 1), MOST_LISTED)
        most = self._session_of(context).recent_threads
        if most is None:
            return await self._theirs(limit, after, order, context)
        newest = await self._newest(most, context) if most else []
        if order == "asc":
            newest.reverse()
        ids = [thread.id for thread in newest]
        if after is not None and after not in ids:
            return Page()
        start = 0 if after is None else ids.index(after) + 1
        part = newest[start : start + limit]
        return Page(data=part, has_more=start + limit < len(newest), after=part[-1].id if part else None)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: TContext
    ) -> Page[ThreadItem]:
        """Load a page of the items of a thread that the session may see."""
        await self.load_thread(thread_id, context)
        return await self._store.load_thread_items(thread_id, after, limit, order, context)

    async def load_item(self, thread_id: str, item_id: str, context: TContext) -> ThreadItem:
        """Load an item of such a thread, and of no other, whatever the store makes of the two ids."""
        await self.load_thread(thread_id, context)
        return _of(thread_id, await self._store.load_item(thread_id, item_id, context))

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Add an item to a thread of the user's: also to one that is no longer among the last while it is answered."""
        await self._mine(thread_id, context)
        await self._store.add_thread_item(thread_id, _of(thread_id, item), context)

    async def save_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Do as `add_thread_item` does."""
        await self._mine(thread_id, context)
        await self._store.save_item(thread_id, _of(thread_id, item), context)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: TContext) -> None:
        """Delete an item of a thread of the user's; nothing where there is no such item, as of one only streamed."""
        await self._mine(thread_id, context)
        try:
            item = await self._store.load_item(thread_id, item_id, context)
        except NotFoundError:
            return
        _of(thread_id, item)
        await self._store.delete_thread_item(thread_id, item_id, context)

    async def save_attachment(self, attachment: Attachment, context: TContext) -> None:
        """Save an attachment of the user's, or a new one, which it becomes."""
        try:
            held = await self._store.load_attachment(attachment.id, context)
        except NotFoundError:
            pass
        else:
            self._check(held.id, held.metadata, context)
        await self._store.save_attachment(stamped(attachment, self._session_of(context)), context)

    async def load_attachment(self, attachment_id: str, context: TContext) -> Attachment:
        """Load an attachment of the user's."""
        held = await self._store.load_attachment(attachment_id, context)
        self._check(attachment_id, held.metadata, context)
        return held

    async def delete_attachment(self, attachment_id: str, context: TContext) -> None:
        """Delete an attachment of the user's; nothing where it is gone already, as the AttachmentStore may have it."""
        try:
            held = await self._store.load_attachment(attachment_id, context)
        except NotFoundError:
            return
        self._check(attachment_id, held.metadata, context)
        await self._store.delete_attachment(attachment_id, context)

    async def _mine(self, thread_id: str, context: TContext) -> ThreadMetadata:
        thread = await self._store.load_thread(thread_id, context)
        self._check(thread_id, thread.metadata, context)
        return thread

    def _check(self, identity: str, metadata: dict[str, Any] | None, context: TContext) -> None:
        if (metadata or {}).get(OWNER) != owner_of(self._session_of(context)):
            raise NotFoundError(identity)

    async def _newest(self, most: int, context: TContext) -> list[ThreadMetadata]:
        found: list[ThreadMetadata] = []
        after: str | None = None
        while len(found) < most:
            page = await self._theirs(min(most - len(found), MOST_LISTED), after, "desc", context)
            found += page.data
            if not page.has_more or page.after in (None, after):
                break
            after = page.after
        return found

    async def _theirs(self, limit: int, after: str | None, order: str, context: TContext) -> Page[ThreadMetadata]:
        """Return up to *limit* of the user's threads; fewer, and that there are more, where most are others'."""
        owner = owner_of(self._session_of(context))
        found: list[ThreadMetadata] = []
        page: Page[ThreadMetadata] = Page(has_more=True, after=after)
        for _ in range(MOST_PAGES):
            # No more than is missing: then the store's own cursor, which means nothing to us, is the page's.
            page = await self._store.load_threads(limit - len(found), page.after, order, context)
            found += [thread for thread in page.data if thread.metadata.get(OWNER) == owner]
            if len(found) >= limit or not page.has_more or page.after is None:
                break
        return Page(data=found, has_more=page.has_more, after=page.after)


class GrantedAttachmentStore(AttachmentStore[TContext]):
    """An attachment store that takes what the session grants. *store* knows whose an attachment is.

    Each attachment counts once, over all servers, as it is created; one that fails later isn't given back. Files that
    come to a route of your own (ChatKit's upload strategy `direct`) are counted there: `await verifier.take_upload(…)`.
    """

    def __init__(
        self,
        attachments: AttachmentStore[TContext],
        store: GrantedStore[TContext],
        verifier: Verifier,
        session_of: SessionOf[TContext],
    ) -> None:
        self._attachments = attachments
        self._store = store
        self._verifier = verifier
        self._session_of = session_of

    def generate_attachment_id(self, mime_type: str, context: TContext) -> str:
        """Return the store's own kind of id; where that is the package's, of 32 random bits, a longer one."""
        if type(self._attachments).generate_attachment_id is AttachmentStore.generate_attachment_id:
            return _longer(default_generate_id("attachment"))
        return self._attachments.generate_attachment_id(mime_type, context)

    async def create_attachment(self, input: AttachmentCreateParams, context: TContext) -> Attachment:  # noqa: A002
        """Count it and create it. Raises `UploadRefused` or `Unavailable`."""
        session = self._session_of(context)
        if not session.may_upload or not 0 <= input.size <= session.max_file_bytes:
            raise UploadRefused
        await self._verifier.take_upload(session, input.size)
        return stamped(await self._attachments.create_attachment(input, context), session)

    async def delete_attachment(self, attachment_id: str, context: TContext) -> None:
        """Delete an attachment of the user's."""
        await self._store.load_attachment(attachment_id, context)
        await self._attachments.delete_attachment(attachment_id, context)


def _longer(identity: str) -> str:
    """Return an id that nobody meets by chance: two threads with one id would be one, or nobody's."""
    return identity + secrets.token_hex(12)


def _of(thread_id: str, item: ThreadItem) -> ThreadItem:
    """Return the item; raise `NotFoundError` where it is another thread's."""
    if item.thread_id != thread_id:
        raise NotFoundError(item.id)
    return item
