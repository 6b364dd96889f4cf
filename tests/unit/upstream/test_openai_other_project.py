"""A key of another project never heard of the session: that it says 404 is no proof that it is gone."""

from service.errors import UpstreamUnavailable
from support.scripted import playing, says

PROJECTS = ["new-project", "old-project"]


async def test_a_cancel_asks_with_every_key_before_it_believes_that_the_session_is_gone() -> None:
    async with playing(says(404), says(200), keys=("sk-new-project", "sk-old-project")) as (client, upstream):
        assert await client.sessions.cancel(client.account, "cksess_1")
        assert [request.headers["authorization"][-11:] for request in upstream.received] == [
            "new-project",
            "old-project",
        ]


async def test_gone_by_one_key_and_no_answer_by_the_other_is_tried_again() -> None:
    plays = [says(404), says(503, x_should_retry="false")]
    async with playing(*plays, keys=("sk-new-project", "sk-old-project")) as (client, _):
        assert isinstance(await client.refused("cancel"), UpstreamUnavailable)


async def test_what_no_key_knows_is_gone() -> None:
    async with playing(says(404), says(404), keys=("sk-new-project", "sk-old-project")) as (client, upstream):
        assert await client.sessions.cancel(client.account, "cksess_1") is None
        assert len(upstream.received) == 2
