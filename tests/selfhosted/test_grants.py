"""What a session grants, at the example server: requests, history, uploads, and for how long."""

import asyncio

import httpx2
import pytest
from redis.asyncio import Redis

from chatkit_sessions.redis import RedisVerifier
from selfhosted.conftest import House, Someone
from selfhosted.parts import LONG, Person, body, events, read_on_and_leave, said

pytestmark = pytest.mark.process
BOTH = pytest.mark.parametrize("verifier", ["redis", "http"], indirect=True)


@BOTH
async def test_the_eleventh_request_in_a_minute_is_one_too_many(someone: Someone) -> None:
    alice, bob = await someone("acme", "alice", "ten"), await someone("acme", "bob", "ten")
    answers = [await alice.send("threads.list") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert answers[-1].json()["code"] == "session_rate_limited"
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    assert await bob.threads() == []


@BOTH
async def test_a_logout_ends_a_running_answer(house: House, someone: Someone) -> None:
    house.server.pause = 0.05
    alice, bob = await someone("acme", "alice"), await someone("acme", "bob")
    content = body("threads.create", input=said(LONG))
    async with (
        bob.chat.stream("POST", "/chatkit", headers=bob.headers, content=content) as others,
        alice.chat.stream("POST", "/chatkit", headers=alice.headers, content=content) as answer,
    ):
        got, late = await read_on_and_leave(answer, alice)
        assert late < 1.0
        theirs = others.aiter_bytes()
        for _ in range(5):
            assert b"error" not in await anext(theirs)
    *told, last = events(got)
    assert last == {"type": "error", "code": "custom", "message": "This chat session has ended.", "allow_retry": False}
    assert 5 <= sum(event["type"] == "thread.item.updated" for event in told) < 60
    assert (await alice.send("threads.list")).status_code == 401
    again = await someone("acme", "alice")
    kept = (await again.ask("items.list", thread_id=told[0]["thread"]["id"], order="asc"))["data"]
    assert [item["type"] for item in kept] == ["user_message", "assistant_message"], "what was said so far is kept"


async def test_without_history_nothing_is_listed_and_a_thread_goes_on(someone: Someone) -> None:
    alice = await someone("acme", "alice", "forgetful")
    thread = await alice.thread()
    assert await alice.threads() == []
    await alice.say("more", thread)
    assert len((await alice.ask("items.list", thread_id=thread))["data"]) == 4
    assert (await (await someone("acme", "alice")).threads()) == [thread]


async def test_of_the_last_n_threads_the_others_are_gone(someone: Someone) -> None:
    whole, alice = await someone("acme", "alice"), await someone("acme", "alice", "two")
    threads = [await whole.thread() for _ in range(4)]
    await (await someone("acme", "bob")).thread()
    assert await alice.threads() == [threads[3], threads[2]]
    assert await alice.threads(order="asc") == [threads[2], threads[3]]
    assert await alice.threads(limit=1) == [threads[3]]
    assert await alice.threads(limit=1, after=threads[3]) == [threads[2]]
    assert await alice.threads(limit=5, after=threads[2]) == []
    assert await alice.threads(limit=5, after=threads[1]) == []
    for kind in ("threads.get_by_id", "items.list", "threads.delete"):
        assert (await alice.send(kind, thread_id=threads[1])).status_code == 404
    message = {"thread_id": threads[0], "input": said("still there?")}
    assert (await alice.send("threads.add_user_message", **message)).status_code == 404
    assert (await alice.send("threads.get_by_id", thread_id=threads[2])).status_code == 200
    new = await alice.thread()
    assert await alice.threads() == [new, threads[3]]
    assert len(await whole.threads()) == 5


async def upload(person: Person, content: bytes, announced: int | None = None) -> tuple[str, httpx2.Response]:
    """Create an attachment and send its file."""
    size = len(content) if announced is None else announced
    made = await person.ask("attachments.create", name="a.txt", size=size, mime_type="text/plain")
    to = made["upload_descriptor"]
    path = to["url"].removeprefix("http://chat.example")
    return made["id"], await person.chat.request(to["method"], path, headers=person.headers, content=content)


@BOTH
async def test_uploads_beyond_the_grant_are_refused(house: House, someone: Someone) -> None:
    without = await someone("acme", "alice")
    params = {"name": "a.txt", "mime_type": "text/plain"}
    answer = await without.send("attachments.create", size=1, **params)
    assert (answer.status_code, answer.json()["code"]) == (403, "upload_refused")
    alice = await someone("acme", "alice", "uploads")
    for size in (2**20 + 1, -1):
        assert (await alice.send("attachments.create", size=size, **params)).status_code == 403
    first, answer = await upload(alice, b"x" * 2**20)
    assert answer.status_code == 204
    assert (house.folder / first).read_bytes() == b"x" * 2**20
    _, answer = await upload(alice, b"more than announced", announced=4)
    assert answer.status_code == 413
    assert (await alice.send("attachments.create", size=1, **params)).status_code == 403, "the third of two"
    told = await alice.say("look", attachments=[first])
    assert told[1]["item"]["attachments"][0]["id"] == first
    assert told[-1]["type"] == "thread.item.done"
    again = await someone("acme", "alice", "uploads")
    assert (await again.send("attachments.create", size=1, **params)).status_code == 200, "counted for each session"


async def test_the_count_is_one_for_all_servers(house: House, someone: Someone, redis: Redis) -> None:
    alice = await someone("acme", "alice", "uploads")
    session = await house.session(alice)
    other = RedisVerifier(redis)

    async def create() -> int:
        return (await alice.send("attachments.create", name="a", size=1, mime_type="text/plain")).status_code

    async def elsewhere() -> int:
        try:
            await other.take_upload(session, 1)
        except Exception:  # noqa: BLE001  (a refusal)
            return 403
        return 200

    got = await asyncio.gather(*(create() for _ in range(5)), *(elsewhere() for _ in range(5)))
    assert sorted(got) == [200] * 2 + [403] * 8


async def test_anybody_elses_attachment_is_none(house: House, someone: Someone) -> None:
    alice = await someone("acme", "alice", "uploads")
    strangers = await someone("acme", "bob", "uploads"), await someone("globex", "alice", "uploads")
    identity, _ = await upload(alice, b"hers")
    for stranger in strangers:
        assert (await stranger.send("attachments.delete", attachment_id=identity)).status_code == 404
        answer = await stranger.chat.put(f"/upload?id={identity}", headers=stranger.headers, content=b"mine")
        assert answer.status_code == 404
        told = await stranger.say("look", attachments=[identity])
        assert [event["type"] for event in told] == ["thread.created", "error"]
        assert identity not in str(told)
    assert (house.folder / identity).read_bytes() == b"hers"
    answer = await alice.chat.put(f"/upload?id={identity}", headers=alice.headers, content=b"ever")
    assert answer.status_code == 409, "a file comes once"
    assert await alice.ask("attachments.delete", attachment_id=identity) == {}
    assert not (house.folder / identity).exists()
    assert (await alice.send("attachments.delete", attachment_id=identity)).status_code == 404
