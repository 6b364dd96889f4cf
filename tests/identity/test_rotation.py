"""Keys rotate while requests come in, and no request is lost by it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from identity.parts import Checking, Clock, Issuer, by_issuer, settled, trust
from service.app import create_app
from service.identity import keys
from service.identity.keys import AHEAD, COOLDOWN, FRESH, KeyCache
from service.settings import Settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

ROTATIONS = 8
CALLERS = 12


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the app's key cache sees it; its background task looks often, since the time jumps."""
    clock = Clock()
    monkeypatch.setattr("service.app.KeyCache", partial(KeyCache, clock=clock))
    monkeypatch.setattr(keys, "ROUND", 0.01)
    return clock


@pytest.fixture
async def app(issuer: Issuer, clock: Clock, redis: Redis, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """The whole service with its background tasks."""
    del clock  # in force before the app is made
    identity = {"issuer": issuer.url, "audience": "app", "algorithms": ["ES256"]}
    app = create_app(Settings(config_dir=write_config(tmp_path, tenant_file("acme", identity))), redis=redis)
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://t") as http:
        yield http


class Load:
    """Callers who ask one request after the other, each with a token of the key that signs just then."""

    def __init__(self, http: httpx2.AsyncClient, issuer: Issuer) -> None:
        self.http = http
        self.issuer = issuer
        self.answers: Counter[str | None] = Counter()
        """By `kid`."""
        self.done = False

    async def call(self) -> None:
        while not self.done:
            signer = self.issuer.signer
            headers = {"authorization": f"Bearer {signer.token()}"}
            answer = await self.http.get("/v1/chatkit/sessions", headers=headers)
            assert answer.status_code == 200, (signer.kid, answer.text)
            self.answers[signer.kid] += 1

    async def answered(self, kid: str | None) -> None:
        """Wait until tokens of a key were answered, often enough for callers to have met."""
        await settled(lambda: self.answers[kid] >= 2 * CALLERS)


async def rotate(issuer: Issuer, clock: Clock, *, overlap: bool) -> Signer:
    """Publish the next key beside the present one and sign with it: once caches have had time to see it, or at once."""
    new, before = issuer.new_signer(), issuer.asked()
    issuer.publish(issuer.signer, new)
    if overlap:
        clock.jump(FRESH * AHEAD + 1)
        await settled(lambda: issuer.asked() > before)
    else:
        clock.jump(COOLDOWN + 1)
    issuer.signer = new
    return new


@pytest.mark.parametrize("overlap", [True, False], ids=["published ahead", "signed with at once"])
async def test_rotation_under_load_loses_no_request(
    app: httpx2.AsyncClient, issuer: Issuer, clock: Clock, overlap: bool
) -> None:
    load = Load(app, issuer)
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(load.call())
        await load.answered(issuer.signer.kid)
        for _ in range(ROTATIONS):
            new = await rotate(issuer, clock, overlap=overlap)
            await load.answered(new.kid)
        load.done = True
    assert len(load.answers) == 1 + ROTATIONS
    assert issuer.asked() == 1 + ROTATIONS


async def test_new_key_at_a_slow_issuer_is_fetched_once_for_all_who_wait(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    new = issuer.new_signer()
    issuer.publish(issuer.signer, new)
    issuer.set(latency=0.3)
    checking.clock.jump(COOLDOWN + 1)
    waiting = asyncio.gather(*(checking.outcome(new.token(), trusts) for _ in range(100)))
    await asyncio.sleep(0)
    # Tokens of the key at hand are not held up by the fetch for the new one.
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    assert not waiting.done()
    assert set(await waiting) == {"acme/alice"}
    assert issuer.asked() == 2


async def test_key_that_a_good_answer_no_longer_lists_is_dropped(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    old, new = issuer.signer, issuer.new_signer()
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    issuer.publish(new)
    checking.clock.jump(FRESH * AHEAD + 1)
    await checking.refreshed()
    assert await checking.outcome(old.token(), trusts) == "invalid_token"
    assert await checking.outcome(new.token(), trusts) == "acme/alice"


async def test_key_withdrawn_and_published_again_counts_again(checking: Checking, issuer: Issuer) -> None:
    trusts = by_issuer(trust(issuer.url, issuer.source))
    old, new = issuer.signer, issuer.new_signer()
    await checking.refreshed()
    for published in ([old], [new], [new, old]):
        issuer.publish(*published)
        checking.clock.jump(FRESH)
        await checking.keys.warm({issuer.source})
        await checking.refreshed()
        found = await checking.outcome(old.token(), trusts)
        assert found == ("acme/alice" if old in published else "invalid_token")


async def test_new_key_is_found_though_a_key_without_kid_is_published(checking: Checking, issuer: Issuer) -> None:
    """A key without a `kid` may be the one meant, but need not be: the unknown `kid` is still worth a fetch."""
    nameless, new = Signer(issuer.url, kid=None), issuer.new_signer()
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.publish(issuer.signer, nameless)
    assert await checking.outcome(nameless.token(), trusts) == "acme/alice"
    issuer.publish(issuer.signer, nameless, new)
    checking.clock.jump(COOLDOWN + 1)
    assert await checking.outcome(new.token(), trusts) == "acme/alice"
    assert issuer.asked() == 2


async def test_issuer_that_names_no_kid_rotates_its_key(checking: Checking, issuer: Issuer) -> None:
    """Nothing but the failing signature tells that the key is a new one."""
    old, new = Signer(issuer.url, kid=None), Signer(issuer.url, kid=None)
    trusts = by_issuer(trust(issuer.url, issuer.source))
    issuer.publish(old)
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    issuer.publish(old, new)
    checking.clock.jump(COOLDOWN + 1)
    assert await checking.outcome(new.token(), trusts) == "acme/alice"
    # Forged ones cause no more fetches than unknown kids do.
    forged = Signer(issuer.url, kid=None)
    found = await asyncio.gather(*(checking.outcome(forged.token(), trusts) for _ in range(50)))
    assert set(found) == {"invalid_token"}
    assert issuer.asked() == 2
