"""Creates are held back from an upstream that fails, and let through again once it has recovered."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from service.errors import UpstreamUnavailable
from service.observe.logs import gather_facts
from service.upstream.breaker import FIRST, THRESHOLD
from support.scripted import SESSION, Client, Play, Upstream, ends, playing, says

HANGS, GOOD = Play(then="hang"), says(200, SESSION)


def gone(refusal: Exception) -> bool:
    """A refusal for which upstream was not asked."""
    return isinstance(refusal, UpstreamUnavailable) and not refusal.asked


async def opened(client: Client, upstream: Upstream) -> None:
    """Let it fail until creates are held back."""
    upstream.plays += [ends(500)] * THRESHOLD
    for _ in range(THRESHOLD):
        await client.refused()


async def test_a_failing_upstream_is_left_alone_and_tried_again() -> None:
    async with playing() as (client, upstream):
        await opened(client, upstream)
        client.now += 1.5
        facts = gather_facts()
        refused = await client.refused()
        assert gone(refused)
        assert refused.retry_after == FIRST - 1.5
        assert (facts["upstream_outcome"], facts["upstream_tries"]) == ("open", 0)
        assert (len(upstream.received), client.orphans) == (THRESHOLD, THRESHOLD)
        assert client.count("upstream_calls", operation="create", outcome="open") == 1
        assert client.count("upstream_breaker_opens", tenant="acme") == 1
        client.now += FIRST
        upstream.plays += [GOOD] * 2
        await client.create()
        await client.create()


async def test_cancels_are_never_held_back() -> None:
    async with playing() as (client, upstream):
        await opened(client, upstream)
        upstream.plays.append(says(200))
        assert await client.sessions.cancel(client.account, "cksess_1")


async def test_failing_cancels_hold_no_create_back() -> None:
    async with playing(*[says(500)] * 3 * THRESHOLD, GOOD) as (client, _):
        for _ in range(THRESHOLD):
            await client.refused("cancel")
        await client.create()


async def test_a_tenant_with_another_key_is_not_held_back() -> None:
    async with playing() as (client, upstream):
        await opened(client, upstream)
        upstream.plays.append(GOOD)
        client.account = replace(client.account, api_keys=(SecretStr("sk-hunter2-new"),))
        await client.create()


async def test_a_try_whose_task_is_cancelled_leaves_the_next_one_to_try() -> None:
    async with playing() as (client, upstream):
        await opened(client, upstream)
        client.now += FIRST
        upstream.plays.append(HANGS)
        upstream.read.clear()
        probe = asyncio.create_task(client.create())
        await upstream.read.wait()
        assert gone(await client.refused())
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        upstream.plays.append(GOOD)
        await client.create()


@pytest.mark.parametrize("play", [says(429), says(404), says(503, retry_after="1"), says(200, b"")], ids=str)
async def test_an_upstream_that_answers_in_order_is_not_left_alone(play: Play) -> None:
    async with playing(*[play] * 3 * (THRESHOLD + 1)) as (client, _):
        for _ in range(THRESHOLD + 1):
            await client.refused()
        assert client.count("upstream_calls", operation="create", outcome="open") == 0


async def test_a_breaker_that_opens_between_two_tries_ends_them() -> None:
    """Refused connections count one by one; what is known to be dead by then is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: Any = listener.getsockname()[1]
    client = Client(port)
    for _ in range(2):
        assert gone(await client.refused())
    assert client.count("upstream_calls", operation="create", outcome="error") == THRESHOLD
    assert client.count("upstream_calls", operation="create", outcome="open") == 1
    await client.transport.aclose()
