"""A user's lines in Redis: each script takes, leaves and adds what it should, whatever stands in the others."""

import time
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import LoginRevoked
from service.observe.metrics import Metrics
from service.principal import Principal
from service.session import Limits, Live
from service.store.connect import RedisGuard
from service.store.pipeline import Pipeline
from service.store.queue import CancelQueue
from service.store.records import UserKeys, login_mark
from service.store.sessions import Admission, Crowded, SessionStore
from support.world import DAY, names

ALICE = UserKeys.of("acme", "alice")
ODD = "a|b\n~lease|9999999999|1\ncksess_9|9999999999|1|1||p|w|u%0A%"
NO_LIMITS = Limits()


class User:
    def __init__(self, redis: Redis) -> None:
        guard = RedisGuard(Metrics(), deadline=5.0)
        self.redis: Any = redis
        self.now = float(int(time.time()))
        pipeline = Pipeline(redis, guard)
        self.store, self.queue = SessionStore(redis, guard, pipeline), CancelQueue(redis, guard, pipeline)

    async def admitted(self, login: str | None = "sid-1", *, ahead: float = 0.0, lease: int = 25) -> Admission:
        who = Principal("acme", "alice", login, self.now + ahead, self.now + 3600, claims={})
        return await self.store.admit(who, NO_LIMITS, lease_seconds=lease)

    async def minted(self, name: str, login: str | None = "sid-1", *, seconds: int = 600, text: str = "wf") -> Live:
        admission = await self.admitted(login)
        live = Live(name, text, text, login_mark(login), self.now, int(self.now) + seconds, self.now, "0a1b")
        await self.store.record(admission, live, NO_LIMITS)
        return live

    async def names(self) -> list[str]:
        return await names(self.redis, ALICE)

    async def leases(self) -> int:
        return (await self.queue.settle(ALICE, [], [], []))[1]


@pytest.fixture
def alice(redis: Redis) -> User:
    return User(redis)


async def test_text_that_looks_like_lines_is_text(alice: User) -> None:
    odd, plain = await alice.minted("cksess_1", text=ODD), await alice.minted("cksess_2")
    assert await alice.store.live(ALICE, now=alice.now) == [plain, odd]
    assert await alice.names() == ["cksess_1", "cksess_2"]
    assert await alice.leases() == 0
    queued = await alice.store.revoke(ALICE, login="sid-1", remember=DAY, reason="logout")
    assert {each.id: each.live for each in queued} == {"cksess_1": odd, "cksess_2": plain}
    assert not await alice.redis.exists(ALICE.live)


@pytest.mark.parametrize(
    "name", ["cksess_1|{ends}", "cksess_1|", "\ncksess_1", "cksess_", "ksess_1", "", "^", "{lease}"]
)
async def test_a_name_matches_a_whole_name_or_nothing(alice: User, name: str) -> None:
    lease = (await alice.admitted(ahead=20)).lease
    like_a_time = next(login for login in map(str, range(999)) if login_mark(login)[0].isdigit())
    live = await alice.minted("cksess_1", like_a_time)
    before = await alice.redis.get(ALICE.live)
    asked = name.format(ends=live.expires_at, lease=lease)
    assert await alice.store.retire(ALICE, asked, reason="cancel") is None
    assert await alice.redis.get(ALICE.live) == before
    assert not await alice.redis.exists(ALICE.queue)


async def test_one_that_leaves_takes_nobody_along(alice: User) -> None:
    everybody = [f"cksess_{number}" for number in (1, 11, 111, 2)]
    for name in everybody:
        await alice.minted(name)
    stands = await alice.redis.pttl(ALICE.live)
    for name in ("cksess_11", "cksess_1", "cksess_2", "cksess_2"):
        await alice.queue.forget(ALICE, name, "~nobody")
        everybody = [each for each in everybody if each != name]
        assert await alice.names() == everybody
        assert stands - 5000 < await alice.redis.pttl(ALICE.live) <= stands
    assert (await alice.store.retire(ALICE, "cksess_111", reason="cancel")) is not None
    assert not await alice.redis.exists(ALICE.live)
    await alice.queue.forget(ALICE, "cksess_111")
    assert not await alice.redis.exists(ALICE.live)


async def test_a_session_that_is_queued_after_all_is_live_no_more(alice: User) -> None:
    kept, put = await alice.minted("cksess_1"), await alice.minted("cksess_2")
    await alice.queue.put(ALICE, put, reason="not_recorded", since=1.0)
    assert await alice.store.live(ALICE, now=alice.now) == [kept]
    assert [each.live for each in await alice.queue.queued(ALICE)] == [put]
    await alice.queue.put(ALICE, put, reason="not_recorded", since=1.0)
    assert await alice.names() == ["cksess_1"]


async def test_a_mint_leaves_the_other_mints_leases(alice: User) -> None:
    others = [(await alice.admitted()).lease, (await alice.admitted("sid-2")).lease]
    mine = await alice.admitted()
    await alice.minted("cksess_1")
    assert await alice.names() == [*others, mine.lease, "cksess_1"]
    assert await alice.leases() == 3
    await alice.store.forgo(mine)
    await alice.store.forgo(mine)
    assert await alice.names() == [*others, "cksess_1"]


async def test_the_latest_token_from_a_clock_ahead_is_remembered_once(alice: User) -> None:
    for ahead in (20.0, 40.0, 30.0, 0.0):
        await alice.admitted(ahead=ahead)
    assert (await alice.names()).count("^") == 1
    lines: bytes = await alice.redis.get(ALICE.live)
    assert b"\n^|%d|%d" % (alice.now + 41, (alice.now + 40) * 1000) in lines
    await alice.store.revoke(ALICE, login=None, remember=DAY, reason="logout")
    with pytest.raises(LoginRevoked):
        await alice.admitted(ahead=39)
    assert "^" in await alice.names()


async def test_lines_stand_as_long_as_the_longest_of_them(alice: User) -> None:
    for seconds in (600, 30):
        await alice.minted(f"cksess_{seconds}", seconds=seconds)
        assert 650 < await alice.redis.ttl(ALICE.live) <= 660
    assert await alice.redis.ttl(ALICE.live) > 650
    await alice.admitted(lease=2000)
    assert 2050 < await alice.redis.ttl(ALICE.live) <= 2060


async def test_a_logout_takes_its_login_and_leaves_the_rest_as_it_was(alice: User) -> None:
    lease = (await alice.admitted()).lease
    for name, login in (("cksess_1", "sid-1"), ("cksess_2", "sid-2"), ("cksess_3", None)):
        await alice.minted(name, login)
    before: bytes = await alice.redis.get(ALICE.live)
    queued = await alice.store.revoke(ALICE, login="sid-1", remember=DAY, reason="logout")
    assert [each.id for each in queued] == ["cksess_1"]
    after: bytes = await alice.redis.get(ALICE.live)
    assert sorted(after.split(b"\n")) == sorted(line for line in before.split(b"\n") if b"cksess_1" not in line)
    assert await alice.names() == [lease, "cksess_2", "cksess_3"]
    queued = await alice.store.revoke(ALICE, login="sid-2", remember=DAY, reason="logout", nameless=True)
    assert {each.id for each in queued} == {"cksess_2", "cksess_3"}


async def test_a_lease_is_taken_away_once_and_stays(alice: User) -> None:
    admission = await alice.admitted()
    await alice.minted("cksess_1")
    for _ in range(2):
        await alice.store.revoke(ALICE, login=None, remember=DAY, reason="tenant_revoked", leases=True)
        lines: bytes = await alice.redis.get(ALICE.live)
        assert lines.count(b"|x") == 1
        assert await alice.names() == [admission.lease]
    assert await alice.leases() == 1


async def test_what_ended_long_ago_leaves_with_a_logout_too(alice: User) -> None:
    past = int(time.time())
    over = [f"\ncksess_{ago}|{past - ago}|1|1|{login_mark('sid-1')}|0a1b|wf|u" for ago in (61, 50)]
    await alice.redis.set(ALICE.live, "".join([*over, f"\n~old|{past - 61}|1"]), ex=600)
    queued = await alice.store.revoke(ALICE, login="sid-1", remember=DAY, reason="logout")
    assert [each.id for each in queued] == ["cksess_50"]  # perhaps not over by upstream's clock
    assert not await alice.redis.exists(ALICE.live)


@pytest.mark.parametrize(("field", "login"), [("*", "sid-1"), ("*", None), ("s", None)])
async def test_a_token_of_the_very_moment_of_a_logout_is_fenced(alice: User, field: str, login: str | None) -> None:
    early, late = await alice.admitted(login), await alice.admitted(login)
    live = Live("cksess_1", "u", "wf", login_mark(login), alice.now, int(alice.now) + 600, alice.now, "0a1b")
    await alice.redis.hset(ALICE.fence, field, early.issued_at - 1)
    await alice.store.record(early, live, NO_LIMITS)
    await alice.admitted(login)
    await alice.redis.hset(ALICE.fence, field, late.issued_at)
    with pytest.raises(LoginRevoked, match="record"):
        await alice.store.record(late, live._replace(id="cksess_2"), NO_LIMITS)
    with pytest.raises(LoginRevoked, match="admit"):
        await alice.admitted(login)
    assert [each.id for each in await alice.queue.queued(ALICE)] == ["cksess_2"]
    assert late.lease not in await alice.names()


async def test_what_record_refuses_stays_queued_until_it_has_ended(alice: User) -> None:
    admission = await alice.admitted()
    live = Live("cksess_1", "u", "wf", admission.login, alice.now, int(alice.now) + 600, alice.now, "0a1b")
    await alice.store.revoke(ALICE, login="sid-1", remember=DAY, reason="logout")
    with pytest.raises(LoginRevoked):
        await alice.store.record(admission, live, NO_LIMITS)
    assert 650 < await alice.redis.ttl(ALICE.queue) <= 660


async def test_neither_a_lease_nor_what_has_ended_gives_way(alice: User) -> None:
    limits = Limits(live=2, excess="cancel_oldest")
    await alice.minted("cksess_over", seconds=-5)  # a moment ago: perhaps not by upstream's clock
    await alice.minted("cksess_1")
    lease, mine = (await alice.admitted()).lease, await alice.admitted()
    live = Live("cksess_2", "u", "wf", mine.login, alice.now + 1, int(alice.now) + 600, alice.now, "0a1b")
    assert await alice.store.record(mine, live, limits) == []
    assert await alice.names() == ["cksess_over", "cksess_1", lease, "cksess_2"]
    mine = await alice.admitted()
    live = live._replace(id="cksess_3", created_at=alice.now + 2)
    with pytest.raises(Crowded):
        await alice.store.record(mine, live, limits)
    assert [each.id for each in await alice.store.record(mine, live, limits, listed=True)] == ["cksess_1"]
    assert await alice.names() == ["cksess_over", lease, "cksess_2", "cksess_3"]
