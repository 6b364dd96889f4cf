"""The wrappers over stores that take no care: one list for everybody, items found by their id alone."""

import dataclasses
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from chatkit.store import AttachmentStore, NotFoundError, Store
from chatkit.types import (
    Attachment,
    AttachmentCreateParams,
    FileAttachment,
    HiddenContextItem,
    Page,
    ThreadItem,
    ThreadMetadata,
)

from chatkit_sessions import UploadRefused, VerifiedSession
from chatkit_sessions.chatkit import OWNER, GrantedAttachmentStore, GrantedStore
from chatkit_sessions.forwarded import NOTHING

NOW = datetime.now(UTC)
T = TypeVar("T")
Granted = GrantedStore[VerifiedSession]


def session(tenant: str = "acme", user: str = "ada", recent: int | None = None) -> VerifiedSession:
    uploads = {"enabled": True, "max_file_size": 1, "max_files": 1}
    grants = {**NOTHING, "history": {"enabled": True, "recent_threads": recent}, "file_upload": uploads}
    return VerifiedSession(f"cksess_{user}", tenant, user, 2**31, {"id": "wf"}, 10, grants)


ADA, SAME_NAME, BOB = session(), session("globex", "ada"), session("acme", "bob")


class Careless(Store[VerifiedSession]):
    """Knows no users; of an item only the id counts."""

    def __init__(self) -> None:
        self.threads: dict[str, ThreadMetadata] = {}
        self.items: dict[str, ThreadItem] = {}
        self.attachments: dict[str, Attachment] = {}
        self.listed = 0

    async def load_thread(self, thread_id: str, context: Any) -> ThreadMetadata:
        return got(self.threads, thread_id).model_copy(deep=True)

    async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
        self.threads[thread.id] = thread

    async def delete_thread(self, thread_id: str, context: Any) -> None:
        del self.threads[thread_id]

    async def load_threads(self, limit: int, after: str | None, order: str, context: Any) -> Page[ThreadMetadata]:
        self.listed += 1
        threads = list(self.threads.values())
        if order == "desc":
            threads.reverse()
        start = int(after or 0)
        end = start + limit
        return Page(data=threads[start:end], has_more=end < len(threads), after=str(end))

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        return Page(data=[item for item in self.items.values() if item.thread_id == thread_id])

    async def load_item(self, thread_id: str, item_id: str, context: Any) -> ThreadItem:
        return got(self.items, item_id)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        self.items[item.id] = item

    async def save_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        self.items[item.id] = item

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Any) -> None:
        del self.items[item_id]

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        return got(self.attachments, attachment_id)

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        self.attachments[attachment.id] = attachment

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        del self.attachments[attachment_id]


def got(held: dict[str, T], identity: str) -> T:
    if identity not in held:
        raise NotFoundError(identity)
    return held[identity]


def thread(identity: str, **metadata: Any) -> ThreadMetadata:
    return ThreadMetadata(id=identity, created_at=NOW, metadata=metadata)


def item(identity: str, thread_id: str) -> ThreadItem:
    return HiddenContextItem(id=identity, thread_id=thread_id, created_at=NOW, content="x")


def file(identity: str) -> Attachment:
    return FileAttachment(id=identity, name="a", mime_type="text/plain")


@pytest.fixture
def careless() -> Careless:
    return Careless()


@pytest.fixture
async def store(careless: Careless) -> Granted:
    """One in which Ada has a thread with an item, and an attachment, and so has Bob."""
    store = GrantedStore(careless, lambda context: context)
    for who, name in ((ADA, "hers"), (BOB, "his")):
        await store.save_thread(thread(name), who)
        await store.add_thread_item(name, item(f"item of {name}", name), who)
        await store.save_attachment(file(f"file of {name}"), who)
    return store


def methods(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize(("of", "ours"), [(Store, GrantedStore), (AttachmentStore, GrantedAttachmentStore)])
def test_no_method_is_left_to_the_base(of: type, ours: type) -> None:
    """A method that a later version adds would go around the store within, or around us."""
    assert methods(of) == methods(ours) == {name for name in vars(ours) if not name.startswith("_")}


HERS: dict[str, Callable[[Granted, VerifiedSession], Any]] = {
    "load_thread": lambda store, who: store.load_thread("hers", who),
    "save_thread": lambda store, who: store.save_thread(thread("hers", **{OWNER: {"tenant": "acme"}}), who),
    "delete_thread": lambda store, who: store.delete_thread("hers", who),
    "load_thread_items": lambda store, who: store.load_thread_items("hers", None, 9, "asc", who),
    "load_item": lambda store, who: store.load_item("hers", "item of hers", who),
    "load_item, of another thread": lambda store, who: store.load_item("his", "item of hers", who),
    "add_thread_item": lambda store, who: store.add_thread_item("hers", item("new", "hers"), who),
    "add_thread_item, of another thread": lambda store, who: store.add_thread_item("his", item("new", "hers"), who),
    "save_item": lambda store, who: store.save_item("hers", item("item of hers", "hers"), who),
    "save_item, of another thread": lambda store, who: store.save_item("his", item("item of hers", "hers"), who),
    "delete_thread_item": lambda store, who: store.delete_thread_item("hers", "item of hers", who),
    "delete_thread_item, of another": lambda store, who: store.delete_thread_item("his", "item of hers", who),
    "load_attachment": lambda store, who: store.load_attachment("file of hers", who),
    "save_attachment": lambda store, who: store.save_attachment(file("file of hers"), who),
    "delete_attachment": lambda store, who: store.delete_attachment("file of hers", who),
}


def test_each_method_that_names_something_is_tried() -> None:
    listing = {"load_threads", "generate_thread_id", "generate_item_id"}
    assert {name.partition(",")[0] for name in HERS} == methods(Store) - listing


@pytest.mark.parametrize("name", HERS)
async def test_what_is_hers_is_nobody_elses(
    store: GrantedStore[VerifiedSession], careless: Careless, name: str
) -> None:
    before = dict(careless.threads), dict(careless.items), dict(careless.attachments)
    for who in (BOB, SAME_NAME):
        with pytest.raises(NotFoundError):
            await HERS[name](store, who)
    assert (careless.threads, careless.items, careless.attachments) == before
    if "," not in name:
        await HERS[name](store, ADA)


async def test_what_is_nobodys_is_for_nobody(store: Granted, careless: Careless) -> None:
    careless.threads["old"] = thread("old")
    careless.threads["bent"] = thread("bent", **{OWNER: None})
    for name in ("old", "bent"):
        with pytest.raises(NotFoundError):
            await store.load_thread(name, ADA)


async def test_the_owner_stays_whatever_the_app_writes(store: Granted) -> None:
    await store.save_thread(thread("hers", **{OWNER: {"tenant": "acme", "user": "bob"}}), ADA)
    await store.save_thread(thread("hers", colour="red"), ADA)
    assert (await store.load_thread("hers", ADA)).metadata["colour"] == "red"
    with pytest.raises(NotFoundError):
        await store.load_thread("hers", BOB)


async def test_lists_among_everybodys(store: Granted, careless: Careless) -> None:
    for number in range(60):
        await store.save_thread(thread(f"t{number}"), (ADA, BOB, SAME_NAME)[number % 3])
    theirs = [f"t{number}" for number in range(57, -1, -3)] + ["hers"]
    found: list[str] = []
    page: Page[ThreadMetadata] = Page(has_more=True)
    while page.has_more:
        page = await store.load_threads(7, page.after, "desc", ADA)
        assert len(page.data) <= 7
        found += [each.id for each in page.data]
    assert found == theirs
    few = session(recent=3)
    assert [each.id for each in (await store.load_threads(20, None, "desc", few)).data] == theirs[:3]
    await store.load_thread(theirs[2], few)
    with pytest.raises(NotFoundError):
        await store.load_thread(theirs[3], few)
    careless.listed = 0
    await store.load_threads(-5, None, "desc", session(recent=0))
    assert careless.listed == 0


async def test_an_answer_may_end_in_a_thread_that_is_no_longer_among_the_last(
    store: GrantedStore[VerifiedSession],
) -> None:
    await store.save_thread(thread("newer"), ADA)
    few = session(recent=1)
    await store.add_thread_item("hers", item("late", "hers"), few)
    with pytest.raises(NotFoundError):
        await store.load_item("hers", "late", few)


async def test_an_item_that_was_only_streamed_can_be_taken_back(store: Granted) -> None:
    await store.delete_thread_item("hers", "never saved", ADA)


def test_ids_are_long_unless_the_store_makes_its_own(careless: Careless) -> None:
    store = GrantedStore(careless, lambda context: context)
    assert len({store.generate_thread_id(ADA) for _ in range(100)}) == 100
    assert len(store.generate_thread_id(ADA)) == len("thr_") + 32
    assert len(store.generate_item_id("message", thread("t"), ADA)) == len("msg_") + 32

    class Own(Careless):
        def generate_thread_id(self, context: Any) -> str:
            return "mine"

        def generate_item_id(self, item_type: Any, thread: Any, context: Any) -> str:
            return "mine too"

    own = GrantedStore(Own(), lambda context: context)
    assert (own.generate_thread_id(ADA), own.generate_item_id("task", thread("t"), ADA)) == ("mine", "mine too")


class Files(AttachmentStore[VerifiedSession]):
    def __init__(self, owner: Any = None) -> None:
        self.deleted: list[str] = []
        self._metadata = {OWNER: owner}

    async def create_attachment(self, input: AttachmentCreateParams, context: Any) -> Attachment:  # noqa: A002
        return FileAttachment(id=input.name, name="a", mime_type="text/plain", metadata=self._metadata)

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        self.deleted.append(attachment_id)


class Counting:
    """A verifier of which only the uploads are asked."""

    def __init__(self, left: int) -> None:
        self.left = left

    async def take_upload(self, session: VerifiedSession, size: int) -> None:
        if self.left == 0:
            raise UploadRefused
        self.left -= 1


async def test_attachments(store: Granted) -> None:
    files, counting = Files({"tenant": "acme", "user": "bob"}), Counting(1)
    granted = GrantedAttachmentStore(files, store, counting, lambda context: context)  # type: ignore[arg-type]
    with pytest.raises(UploadRefused):
        await granted.create_attachment(AttachmentCreateParams(name="big", size=2**20 + 1, mime_type="a/b"), ADA)
    assert counting.left == 1
    made = await granted.create_attachment(AttachmentCreateParams(name="f", size=1, mime_type="a/b"), ADA)
    assert made.metadata == {OWNER: {"tenant": "acme", "user": "ada"}}
    with pytest.raises(UploadRefused):
        await granted.create_attachment(AttachmentCreateParams(name="g", size=1, mime_type="a/b"), ADA)
    off = dataclasses.replace(ADA, chatkit_configuration=NOTHING)
    counting.left = 1
    with pytest.raises(UploadRefused):
        await granted.create_attachment(AttachmentCreateParams(name="g", size=1, mime_type="a/b"), off)
    assert counting.left == 1, "where uploads are off nobody is asked"
    with pytest.raises(NotFoundError):
        await granted.delete_attachment("file of hers", BOB)
    assert files.deleted == []
    await granted.delete_attachment("file of hers", ADA)
    assert files.deleted == ["file of hers"]
    assert len(granted.generate_attachment_id("a/b", ADA)) == len("atc_") + 32
