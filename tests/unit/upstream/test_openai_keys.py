"""With which key a call is made while keys are being rotated."""

import pytest
from structlog.testing import capture_logs

from service.errors import UpstreamRefused
from service.observe.logs import gather_facts
from support.scripted import SESSION, Play, Upstream, ends, playing, says

OLD, NEW = "sk-hunter2-old", "sk-hunter2-new"
LOST, GOOD = Play(then="close"), says(200, SESSION)


def keys_of(upstream: Upstream) -> list[str]:
    """The keys that upstream was shown, one a request."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in upstream.received]


async def test_while_keys_are_rotated_the_one_that_works_is_used_and_kept() -> None:
    async with playing(says(401), GOOD, GOOD, ends(200, SESSION), keys=(NEW, OLD)) as (client, upstream):
        facts = gather_facts()
        with capture_logs() as lines:
            await client.create()
        assert keys_of(upstream) == [NEW, OLD]
        assert (client.waits, facts["upstream_tries"], client.orphans) == ([], 2, 0)
        assert "hunter2" not in str(lines)
        await client.create()
        assert await client.sessions.cancel(client.account, "cksess_1")
        assert keys_of(upstream)[2:] == [OLD, OLD]
        # And once the old one is withdrawn, the new one.
        upstream.plays += [says(401), GOOD, GOOD]
        await client.create()
        await client.create()
        assert keys_of(upstream)[4:] == [OLD, NEW, NEW]


async def test_a_cancel_tries_every_key() -> None:
    async with playing(says(401), says(401), says(200), keys=("sk-hunter2", NEW, OLD)) as (client, upstream):
        assert await client.sessions.cancel(client.account, "cksess_1")
        assert keys_of(upstream) == ["sk-hunter2", NEW, OLD]


async def test_keys_that_are_all_refused_are_our_configurations_fault() -> None:
    async with playing(*[says(401)] * 4, keys=(NEW, OLD)) as (client, upstream):
        for _ in range(2):
            assert isinstance(await client.refused(), UpstreamRefused)
        assert keys_of(upstream) == [NEW, OLD, NEW, OLD]
        assert client.orphans == 0


async def test_a_key_that_did_not_get_an_answer_is_not_preferred() -> None:
    async with playing(says(401), LOST, GOOD, keys=(NEW, OLD)) as (client, upstream):
        await client.refused()
        await client.create()
        assert keys_of(upstream) == [NEW, OLD, NEW]


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
async def test_only_a_key_that_is_not_believed_makes_way_for_the_next(status: int) -> None:
    async with playing(*[says(status, x_should_retry="false")] * 3, keys=(NEW, OLD)) as (client, upstream):
        await client.refused()
        assert keys_of(upstream) == [NEW]
