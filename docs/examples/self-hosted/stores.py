"""Small stores for the example: JSON in SQLite, files in a folder. They know nothing of what a session may."""

import secrets
import sqlite3
from pathlib import Path
from typing import Any

from chatkit.store import AttachmentStore, NotFoundError, Store
from chatkit.types import (
    Attachment,
    AttachmentCreateParams,
    AttachmentUploadDescriptor,
    FileAttachment,
    Page,
    ThreadItem,
    ThreadMetadata,
)
from pydantic import AnyUrl, TypeAdapter

from chatkit_sessions import VerifiedSession

ITEM: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
ATTACHMENT: TypeAdapter[Attachment] = TypeAdapter(Attachment)
TABLES = """
create table if not exists threads (
  n integer primary key, id text unique, tenant text, user text, json text);
create table if not exists items (
  n integer primary key, thread text, id text, json text, unique (thread, id));
create table if not exists attachments (id text primary key, json text);
create index if not exists theirs on threads (tenant, user);
"""


class SqliteStore(Store[VerifiedSession]):
    """Newest first is by creation. One connection: for one process that is not busy."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(TABLES)
        self.close = self._db.close

    async def load_thread(self, thread_id: str, context: VerifiedSession) -> ThreadMetadata:
        return ThreadMetadata.model_validate_json(self._one("select json from threads where id = ?", thread_id))

    async def save_thread(self, thread: ThreadMetadata, context: VerifiedSession) -> None:
        self._db.execute(
            "insert into threads (id, tenant, user, json) values (?, ?, ?, ?) "
            "on conflict (id) do update set json = excluded.json",
            (thread.id, context.tenant, context.user, thread.model_dump_json()),
        )

    async def delete_thread(self, thread_id: str, context: VerifiedSession) -> None:
        self._db.execute("delete from items where thread = ?", (thread_id,))
        self._db.execute("delete from threads where id = ?", (thread_id,))

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: VerifiedSession
    ) -> Page[ThreadMetadata]:
        theirs = [context.tenant, context.user]
        rows, more = self._page("threads", "tenant = ? and user = ?", theirs, after, limit, order)
        data = [ThreadMetadata.model_validate_json(json) for _, json in rows]
        return Page(data=data, has_more=more, after=data[-1].id if data else None)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: VerifiedSession
    ) -> Page[ThreadItem]:
        rows, more = self._page("items", "thread = ?", [thread_id], after, limit, order)
        data = [ITEM.validate_json(json) for _, json in rows]
        return Page(data=data, has_more=more, after=data[-1].id if data else None)

    async def load_item(self, thread_id: str, item_id: str, context: VerifiedSession) -> ThreadItem:
        return ITEM.validate_json(self._one("select json from items where thread = ? and id = ?", thread_id, item_id))

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: VerifiedSession) -> None:
        await self.save_item(thread_id, item, context)

    async def save_item(self, thread_id: str, item: ThreadItem, context: VerifiedSession) -> None:
        self._db.execute(
            "insert into items (thread, id, json) values (?, ?, ?) "
            "on conflict (thread, id) do update set json = excluded.json",
            (thread_id, item.id, ITEM.dump_json(item).decode()),
        )

    async def delete_thread_item(self, thread_id: str, item_id: str, context: VerifiedSession) -> None:
        self._db.execute("delete from items where thread = ? and id = ?", (thread_id, item_id))

    async def load_attachment(self, attachment_id: str, context: VerifiedSession) -> Attachment:
        return ATTACHMENT.validate_json(self._one("select json from attachments where id = ?", attachment_id))

    async def save_attachment(self, attachment: Attachment, context: VerifiedSession) -> None:
        self._db.execute(
            "insert into attachments values (?, ?) on conflict (id) do update set json = excluded.json",
            (attachment.id, ATTACHMENT.dump_json(attachment).decode()),
        )

    async def delete_attachment(self, attachment_id: str, context: VerifiedSession) -> None:
        self._db.execute("delete from attachments where id = ?", (attachment_id,))

    def _one(self, query: str, *values: str) -> str:
        row = self._db.execute(query, values).fetchone()
        if row is None:
            raise NotFoundError(values[-1])
        json: str = row[0]
        return json

    def _page(
        self, table: str, where: str, values: list[Any], after: str | None, limit: int, order: str
    ) -> tuple[list[tuple[int, str]], bool]:
        """Return up to *limit* rows that come after the one whose id is *after*, and whether there are more."""
        sign, direction = ("<", "desc") if order == "desc" else (">", "asc")
        query = f"select n, json from {table} where {where}"
        if after is not None:
            query += f" and n {sign} (select n from {table} where {where} and id = ?)"
            values = [*values, *values, after]
        rows = self._db.execute(f"{query} order by n {direction} limit ?", [*values, limit + 1]).fetchall()
        return rows[:limit], len(rows) > limit


class Files(AttachmentStore[VerifiedSession]):
    """Files in a folder, by the ids of their attachments. They come to *url*."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url

    async def create_attachment(self, input: AttachmentCreateParams, context: VerifiedSession) -> Attachment:  # noqa: A002
        identity = f"atc_{secrets.token_hex(16)}"
        return FileAttachment(
            id=identity,
            name=input.name,
            mime_type=input.mime_type,
            upload_descriptor=AttachmentUploadDescriptor(url=AnyUrl(f"{self._url}?id={identity}"), method="PUT"),
            metadata={"size": input.size},
        )

    async def delete_attachment(self, attachment_id: str, context: VerifiedSession) -> None:
        (self.folder / attachment_id).unlink(missing_ok=True)
