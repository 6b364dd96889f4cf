"""What stands in Redis: text that comes back as it was, keys that share a slot."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.session import Account, Live
from service.store.records import (
    MARKS,
    SHARDS,
    Queued,
    UserKeys,
    due_shard,
    escape,
    login_mark,
    read_live,
    read_queued,
    read_record,
    readable,
    write_queued,
    write_record,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text("|%7C250A~:{}\n ", max_size=12)
NAME = TEXT.filter(bool)
ID = NAME.filter(lambda text: not text.startswith(MARKS))
TIME = st.integers(0, 2**32)
LIVE = st.builds(
    Live,
    id=ID,
    user=TEXT,
    workflow=TEXT,
    login=(st.none() | NAME).map(login_mark),
    created_at=TIME,
    expires_at=TIME,
    issued_at=TIME.map(float),
    place=st.just(Account("acme", "openai", "https://api.openai.com/v1").place),
)


@given(LIVE)
@example(Live("s", "a|b%7C%25|\n~x|1", "w|%|7C\n%0A", login_mark("%7C|%25"), 1, 2, 3.0, "0a1b"))
def test_a_record_comes_back_as_it_was_written(live: Live) -> None:
    assert read_record(live.id, write_record(live)) == live


@given(LIVE)
def test_lua_finds_times_and_login_by_counting_separators(live: Live) -> None:
    fields = write_record(live).split("|")
    assert fields[:3] == [str(live.expires_at), str(int(live.issued_at * 1000)), str(int(live.created_at * 1_000_000))]
    assert fields[3:] == [live.login, live.place, escape(live.workflow), escape(live.user)]


@given(st.lists(LIVE))
def test_lines_come_back_as_they_were_written(sessions: list[Live]) -> None:
    plain = [live._replace(id=f"cksess_{number}") for number, live in enumerate(sessions)]
    lines = ["~lease|1800000000|1", "^|1800000000|1", *(f"{live.id}|{write_record(live)}" for live in plain)]
    assert read_live("".join(f"\n{line}" for line in lines)) == plain


@given(TEXT, TEXT)
def test_escaped_text_has_no_separator_and_stays_apart(one: str, other: str) -> None:
    assert not {"|", "\n"} & set(escape(one))
    assert (escape(one) == escape(other)) == (one == other)


@given(LIVE, st.integers(0, 99), st.sampled_from(["logout", "not_recorded", "excess"]))
def test_a_queue_entry_comes_back_as_it_was_written(live: Live, attempts: int, reason: str) -> None:
    queued = Queued(live.id, attempts, reason, live, 1_800_000_000.5)
    assert read_queued(live.id, write_queued(queued)) == queued
    assert queued.expires_at == live.expires_at


@pytest.mark.parametrize("mark", MARKS)
def test_what_is_marked_is_no_session(mark: str) -> None:
    assert read_record(f"{mark}x", "1800000000") is None
    with pytest.raises(ValueError, match="no session"):
        read_queued(f"{mark}x", "0|logout|1800000000000|1800000000")


@pytest.mark.parametrize(
    "record", ["", "1800000000", "1|2|3|4|5", "x|2|3|login|place|wf|user", "1|2|3|4|5|6", "1|2|3|4|5|6|7|8"]
)
def test_a_record_that_is_not_ours_is_told(record: str) -> None:
    with pytest.raises(ValueError):
        read_record("cksess_1", record)


def test_one_unreadable_entry_does_not_keep_the_others_from_being_cancelled() -> None:
    live = Live("cksess_1", "u", "wf", "", 1, 2, 3.0, "0a1b")
    good = (b"cksess_1", write_queued(Queued("cksess_1", 0, "logout", live, 1.0)).encode())
    bad = [(b"\xff", good[1]), (b"cksess_2", b"\xff"), (b"cksess_3", b"nonsense"), (b"~lease", good[1])]
    assert [queued.id for queued in readable([*bad[:2], good, *bad[2:]])] == ["cksess_1"]


@given(NAME)
def test_all_keys_of_a_user_share_a_hash_tag(subject: str) -> None:
    keys = UserKeys.of("acme", subject)
    for key in (keys.live, keys.queue, keys.fence, keys.rate(0), keys.rate(1)):
        assert key.startswith(f"cm:{{{keys.tag}}}:")
        assert key.count("{") == key.count("}") == 1
    assert keys.tenant == "acme"
    assert keys.due in {due_shard(number) for number in range(SHARDS)}
    assert UserKeys(keys.tag).due == keys.due


@given(NAME, NAME)
def test_users_have_tags_of_their_own(one: str, other: str) -> None:
    assert (UserKeys.of("acme", one) == UserKeys.of("acme", other)) == (one == other)
    assert UserKeys.of("acme", one) != UserKeys.of("globex", one)


@given(st.sampled_from(["acme", "a", "x" * 63, "a-b_c9"]), NAME)
def test_a_tag_is_plain_text_that_does_not_show_the_subject(tenant: str, subject: str) -> None:
    tag = UserKeys.of(tenant, subject).tag
    digest: Any = tag.removeprefix(f"{tenant}:")
    assert len(digest) == 16
    assert digest.replace("-", "").replace("_", "").isalnum()
    assert UserKeys(tag).tenant == tenant


def test_users_are_spread_over_every_shard() -> None:
    assert len({UserKeys.of("acme", f"user-{number}").due for number in range(400)}) == SHARDS
