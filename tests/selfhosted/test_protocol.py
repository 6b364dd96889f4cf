"""Every request of ChatKit's protocol, by whom it concerns and by everybody else."""

from typing import Any, get_args

import pytest
from chatkit.types import ChatKitReq

from selfhosted.conftest import House, Someone
from selfhosted.full import furnish
from selfhosted.parts import Person, body, events, said

pytestmark = pytest.mark.process

STREAMED: dict[str, dict[str, Any]] = {
    "threads.add_user_message": {"input": said("more")},
    "threads.add_client_tool_output": {"result": 42},
    "threads.add_structured_input": {"item_id": "input", "input": {"answers": {"q1": {"values": ["so"]}}}},
    "threads.custom_action": {"item_id": "widget", "action": {"type": "press"}},
    "threads.retry_after_item": {"item_id": "message"},
}
ANSWERED: dict[str, dict[str, Any]] = {
    "threads.get_by_id": {},
    "items.list": {},
    "items.feedback": {"item_ids": ["widget"], "kind": "positive"},
    "threads.update": {"title": "mine now"},
    "threads.sync_custom_action": {"item_id": "widget", "action": {"type": "press"}},
    "threads.delete": {},
}
OF_A_THREAD = {**STREAMED, **ANSWERED}
"""What names a thread, and items of it by their kind."""
OF_NONE = {"threads.create", "threads.list", "attachments.create", "attachments.delete", "input.transcribe"}
"""What doesn't; each has a test of its own."""


def with_ids(params: dict[str, Any], thread: str, ids: dict[str, str]) -> dict[str, Any]:
    params = {"thread_id": thread, **params}
    if "item_id" in params:
        params["item_id"] = ids[params["item_id"]]
    if "item_ids" in params:
        params["item_ids"] = [ids[each] for each in params["item_ids"]]
    return params


async def a_thread(house: House, person: Person) -> tuple[str, dict[str, str]]:
    """A thread with a message, and with items of each kind that a request may name; the tool call comes last."""
    thread = await person.thread()
    items = (await person.ask("items.list", thread_id=thread, order="asc"))["data"]
    ids = await furnish(house.server, thread, await house.session(person))
    return thread, {**ids, "message": items[0]["id"]}


def test_no_request_of_the_protocol_is_left_out() -> None:
    union = get_args(get_args(ChatKitReq)[0])
    assert {each.model_fields["type"].default for each in union} == {*OF_A_THREAD, *OF_NONE}


async def test_for_anybody_else_there_is_no_such_thread(house: House, someone: Someone) -> None:
    alice, *strangers = await someone(), await someone("acme", "bob"), await someone("globex", "alice")
    for kind in OF_A_THREAD:
        await alices_alone(house, kind, alice, strangers)


async def alices_alone(house: House, kind: str, alice: Person, strangers: list[Person]) -> None:
    thread, ids = await a_thread(house, alice)
    own, _ = await a_thread(house, strangers[0])
    before = await alice.ask("items.list", thread_id=thread), await alice.ask("threads.list")
    house.server.called.clear()
    attempts = [(stranger, with_ids(OF_A_THREAD[kind], thread, ids)) for stranger in strangers]
    if "item_id" in str(OF_A_THREAD[kind]):  # an item of hers, said to be in a thread of his
        attempts.append((strangers[0], with_ids(OF_A_THREAD[kind], own, ids)))
    for stranger, params in attempts:
        answer = await stranger.send(kind, **params)
        if kind == "threads.retry_after_item" and params["thread_id"] == own:
            assert answer.text == "", "there is nothing to try again"
            continue
        assert (answer.status_code, answer.json()) == (404, {"code": "NotFoundError"}), params
    assert (await alice.ask("items.list", thread_id=thread), await alice.ask("threads.list")) == before
    assert house.server.called == []
    answer = await alice.send(kind, **with_ids(OF_A_THREAD[kind], thread, ids))
    assert answer.status_code == 200, answer.text
    assert '"type":"error"' not in answer.text


@pytest.mark.parametrize("verifier", ["redis", "http"], indirect=True)
async def test_a_conversation(someone: Someone) -> None:
    alice, bob = await someone("acme", "alice"), await someone("acme", "bob")
    told = await alice.say("good morning")
    assert [event["type"] for event in told[:3]] == ["thread.created", "thread.item.done", "stream_options"]
    thread = told[0]["thread"]["id"]
    assert told[-1]["item"]["content"][0]["text"] == "acme:alice said: good morning "
    await alice.say("and more", thread)
    items = (await alice.ask("items.list", thread_id=thread, order="asc"))["data"]
    assert [item["type"] for item in items] == ["user_message", "assistant_message"] * 2
    assert (await alice.ask("threads.get_by_id", thread_id=thread))["items"]["data"] == items
    assert (await alice.ask("threads.update", thread_id=thread, title="Greetings"))["title"] == "Greetings"
    assert await alice.threads() == [thread]
    assert await bob.threads() == []
    await alice.ask("threads.delete", thread_id=thread)
    assert await alice.threads() == []
    assert (await alice.send("threads.get_by_id", thread_id=thread)).status_code == 404


async def test_lists_hold_ones_own_alone(someone: Someone) -> None:
    people = [await someone(*who) for who in (("acme", "alice"), ("acme", "bob"), ("globex", "alice"))]
    theirs = [[await person.thread() for _ in range(3)] for person in people]
    for person, threads in zip(people, theirs, strict=True):
        assert await person.threads(order="asc") == threads
        assert await person.threads(limit=2) == threads[:0:-1]
        assert await person.threads(limit=2, after=threads[1]) == threads[:1]
        stranger = people[0] if person is not people[0] else people[1]
        assert set(await stranger.threads(after=threads[0], limit=100)) <= set(theirs[people.index(stranger)])


async def test_nobody_learns_who_owns_what(house: House, someone: Someone) -> None:
    alice = await someone("acme", "alice", "uploads")
    made = await alice.send("attachments.create", name="a", size=1, mime_type="text/plain")
    told = await alice.send("threads.create", input=said("hi", [made.json()["id"]]))
    thread = events(told.text)[0]["thread"]["id"]
    answers = [made, told, *[await alice.send(kind, thread_id=thread) for kind in ("threads.get_by_id", "items.list")]]
    answers.append(await alice.send("threads.list"))
    assert (await house.server.store.load_thread(thread, await house.session(alice))).metadata
    for answer in answers:
        assert answer.status_code == 200
        assert "size" not in answer.text
        assert "chatkit_sessions_owner" not in answer.text


async def test_speech_is_ones_own(house: House, someone: Someone) -> None:
    alice = await someone()
    told = await alice.ask("input.transcribe", audio_base64="AAAA", mime_type="audio/webm")
    assert told == {"text": "3 bytes"}
    assert house.server.called == [("transcribe", "acme:alice")]


async def test_nonsense_is_refused(someone: Someone) -> None:
    alice = await someone()
    for content in (b"", b"[]", b"{}", b'{"type": "threads.steal"}', b'{"type": "items.list", "params": {}}', b"\xff"):
        answer = await alice.chat.post("/chatkit", headers=alice.headers, content=content)
        assert (answer.status_code, answer.json()) == (400, {"code": "ValidationError"}), content


async def test_a_body_has_an_end(someone: Someone) -> None:
    alice = await someone()
    content = body("threads.create", input=said("x" * (2 * 1024 * 1024)))
    assert (await alice.chat.post("/chatkit", headers=alice.headers, content=content)).status_code == 413
