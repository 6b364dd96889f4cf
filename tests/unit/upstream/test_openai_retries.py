"""What is sent again, with which key and after how long; and what is not sent at all."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.errors import UpstreamRefused, UpstreamTimeout, UpstreamUnavailable
from service.observe.logs import gather_facts
from service.upstream.call import Patience
from support.scripted import SESSION, Play, answer, ends, playing, says

LOST, HANGS = Play(then="close"), Play(then="hang")
GOOD = says(200, SESSION)


def gone(refusal: Exception) -> bool:
    """A refusal for which upstream was not asked."""
    return isinstance(refusal, UpstreamUnavailable) and not refusal.asked


# --- how often, and after how long ---


async def test_a_create_that_did_nothing_is_sent_again_after_a_growing_wait() -> None:
    async with playing(says(429), says(429), GOOD) as (client, upstream):
        facts = gather_facts()
        assert (await client.create()).client_secret == "ek_1"
        assert (len(upstream.received), facts["upstream_tries"], client.orphans) == (3, 3, 0)
        first, second = client.waits
        assert 0.375 <= first <= 0.5
        assert 0.75 <= second <= 1.0
        assert client.count("upstream_retries", operation="create", reason="429") == 2


async def test_after_two_retries_it_is_over() -> None:
    async with playing(*[says(429)] * 5) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamUnavailable)
        assert (len(upstream.received), len(client.waits)) == (3, 2)


@pytest.mark.parametrize("headers", [{"retry_after": "3"}, {"retry_after_ms": "3000", "retry_after": "1"}])
async def test_a_hint_takes_the_place_of_our_own_wait(headers: dict[str, str]) -> None:
    async with playing(says(503, **headers), GOOD) as (client, _):
        await client.create()
        assert client.waits == [3.0]


async def test_a_hint_that_is_over_already_is_no_leave_to_hammer() -> None:
    async with playing(says(429, retry_after="0"), GOOD) as (client, _):
        await client.create()
        assert client.waits[0] >= 0.375


async def test_an_end_that_is_not_told_is_counted_from_the_call_that_made_the_session() -> None:
    """Counted from the first, it would be believed to be over, and not be cancelled, while it still lives."""
    untold = says(200, {"id": "cksess_1", "client_secret": "ek_1"})
    async with playing(says(429, retry_after="5"), untold) as (client, _):
        assert (await client.create()).session.expires_at == 1_800_000_000 + 5 + 300


@pytest.mark.parametrize(("told", "passed_on"), [("14.9", 14.9), ("20", 20.0), ("3600", 60.0)])
async def test_a_hint_past_the_deadline_is_passed_on_at_once(told: str, passed_on: float) -> None:
    async with playing(says(503, retry_after=told), GOOD) as (client, upstream):
        assert (await client.refused()).retry_after == passed_on
        assert (client.waits, len(upstream.received)) == ([], 1)


async def test_all_waits_together_fit_into_the_deadline() -> None:
    async with playing(*[says(503, retry_after="8")] * 3) as (client, upstream):
        assert (await client.refused()).retry_after == 8
        assert (client.waits, len(upstream.received)) == ([8.0], 2)


async def test_a_retry_has_no_longer_than_what_is_left() -> None:
    """Past the deadline nobody waits any more: neither for an answer nor with a connection held."""
    patience = Patience(call=5.0, deadline=1.3)
    async with playing(says(429, retry_after="1"), HANGS, patience=patience) as (client, _):
        refused = await client.refused()
        assert isinstance(refused, UpstreamTimeout)
        assert refused.reason == "no answer within 0.3 s"


async def test_what_upstream_says_of_retries_goes_before_our_rules() -> None:
    async with playing(says(429, x_should_retry="false"), GOOD) as (client, upstream):
        await client.refused()
        assert len(upstream.received) == 1
    async with playing(*[says(400, x_should_retry="true")] * 3) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamRefused)
        assert len(upstream.received) == 2
        assert client.count("upstream_retries", operation="create", reason="told") == 1


async def test_an_account_without_credit_is_our_configurations_fault() -> None:
    quota = {"error": {"message": "…", "type": "insufficient_quota", "code": "insufficient_quota"}}
    async with playing(says(429, quota), GOOD) as (client, upstream):
        refused = await client.refused()
        assert isinstance(refused, UpstreamRefused)
        assert refused.reason == "upstream answered 429 insufficient_quota"
        assert len(upstream.received) == 1


async def test_a_tenant_that_opts_in_has_ambiguous_creates_repeated_and_counted() -> None:
    async with playing(says(500), LOST, GOOD, retry_creates=True) as (client, upstream):
        assert (await client.create()).session.id == "cksess_1"
        assert (len(upstream.received), client.orphans) == (3, 2)
    async with playing(HANGS, says(409), says(408), retry_creates=True, timeout=0.5) as (client, upstream):
        assert isinstance(await client.refused(), UpstreamRefused)
        assert (len(upstream.received), client.orphans) == (3, 3)


@pytest.mark.parametrize(
    "trouble", [LOST, *map(says, (408, 409, 429, 500, 503, 529))], ids=lambda play: str(play.answer[:12])
)
async def test_a_cancel_is_sent_again_until_it_is_confirmed(trouble: Play) -> None:
    async with playing(trouble, trouble, says(200)) as (client, upstream):
        assert await client.sessions.cancel(client.account, "cksess_1")
        assert (len(upstream.received), client.orphans) == (3, 0)


async def test_a_cancel_that_gets_no_answer_is_sent_again() -> None:
    async with playing(HANGS, says(200), patience=Patience(read=0.5)) as (client, upstream):
        assert await client.sessions.cancel(client.account, "cksess_1")
        assert len(upstream.received) == 2


# --- what was never sent ---


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: one more is neither taken nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    "patience", [Patience(connect=0.1), Patience(call=0.8, connect=3.0)], ids=["connect", "whole call"]
)
async def test_a_connection_that_is_not_made_in_time_created_nothing(
    deaf_port: int, patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.upstream.retry.MOST", 0)
    async with playing(patience=patience) as (client, _):
        client.account = replace(client.account, base_url=f"http://127.0.0.1:{deaf_port}/v1")
        assert gone(await client.refused())
        assert (client.count("upstream_calls", operation="create", outcome="timeout"), client.orphans) == (1, 0)


async def test_a_create_of_which_one_try_was_sent_was_asked() -> None:
    """The first was answered, and counted there, although nobody listens any more when the next ones are made."""
    async with playing(ends(429)) as (client, upstream):
        client.meanwhile = upstream.stop_listening
        refused = await client.refused()
        assert isinstance(refused, UpstreamUnavailable)
        assert client.count("upstream_calls", operation="create", outcome="error") == 2
        assert refused.asked


async def test_a_handshake_that_is_not_answered_created_nothing() -> None:
    silent = Play(then="hang", read=False)
    async with playing(silent, silent, silent, patience=Patience(connect=0.1)) as (client, upstream):
        client.account = replace(client.account, base_url=f"https://127.0.0.1:{upstream.port}/v1")
        assert gone(await client.refused())
        assert (client.orphans, upstream.connections) == (0, 3)


async def test_no_free_connection_is_waited_for_shortly_and_cancels_need_not() -> None:
    patience = Patience(pool=0.05)
    async with playing(HANGS, patience=patience, creates=1) as (client, upstream):
        first = asyncio.create_task(client.create())
        await upstream.read.wait()
        assert gone(await client.refused())
        assert client.count("upstream_calls", operation="create", outcome="pool") == 3
        assert client.count("upstream_retries", operation="create", reason="pool") == 2
        upstream.plays.append(says(200))
        assert await client.sessions.cancel(client.account, "cksess_1")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        upstream.plays.append(GOOD)
        await client.create()


async def test_silence_within_an_answer_is_bounded_apart() -> None:
    half = Play(answer(200, SESSION)[:-1], "hang")
    async with playing(half, patience=Patience(read=0.1)) as (client, _):
        refused = await client.refused()
        assert isinstance(refused, UpstreamTimeout)
        assert refused.reason == "SocketTimeoutError"  # not the bound of the whole call
        assert client.orphans == 1
