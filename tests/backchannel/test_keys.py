"""The keys of the provider: away, rotated, withdrawn."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from backchannel.parts import EVENTS, ROUTE, accepted, entry, refused, unavailable
from identity.parts import Clock, Issuer
from service.app import create_app
from service.identity.keys import COOLDOWN, HARD_MAX, RETRY, KeyCache
from service.settings import Settings
from service.transport import make_transport
from support.issuer import JWKS
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SID = "sid-1"


class Desk:
    """A service whose key cache's time a test moves, and the provider that it believes."""

    def __init__(self, http: httpx2.AsyncClient, issuer: Issuer) -> None:
        self.http = http
        self.issuer = issuer

    async def log_out(self, signer: Signer, **changes: Any) -> httpx2.Response:
        claims = {"jti": f"{signer.kid}", "events": EVENTS, "sid": SID, **changes}
        token = signer.token(headers={"typ": "logout+jwt"}, **claims)
        return await self.http.post(ROUTE, data={"logout_token": token})

    async def mint(self) -> int:
        headers = {"authorization": f"Bearer {self.issuer.signer.token(sid=SID)}"}
        return (await self.http.post("/v1/chatkit/sessions", headers=headers)).status_code


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.app.KeyCache", partial(KeyCache, clock=clock))
    return clock


@pytest.fixture
async def desk(own_issuer: Issuer, clock: Clock, redis: Redis, tmp_path: Path) -> AsyncIterator[Desk]:
    del clock  # in force before the app is made
    config = write_config(tmp_path, tenant_file("acme", entry(own_issuer, "app")))
    # Not started: keys are fetched when they are asked for, and never by themselves.
    transport = make_transport()
    app = create_app(Settings(config_dir=config), redis=redis, transport=transport)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://t") as http:
        yield Desk(http, own_issuer)
    await transport.aclose()


@pytest.mark.parametrize("fault", ["error", "cut", "garbage", "empty set"])
async def test_keys_that_were_never_had_are_503(desk: Desk, clock: Clock, fault: str) -> None:
    desk.issuer.fault(fault)
    unavailable(await desk.log_out(desk.issuer.signer))
    desk.issuer.set(faults={})
    clock.jump(RETRY + 1)
    accepted(await desk.log_out(desk.issuer.signer))
    assert await desk.mint() == 401


async def test_an_issuer_that_is_gone_is_503(desk: Desk) -> None:
    desk.issuer.stop()
    unavailable(await desk.log_out(desk.issuer.signer))


async def test_old_keys_serve_while_the_issuer_is_down_up_to_a_day(desk: Desk, clock: Clock) -> None:
    accepted(await desk.log_out(desk.issuer.signer, jti="1"))
    desk.issuer.fault("error")
    clock.jump(HARD_MAX - 1)
    accepted(await desk.log_out(desk.issuer.signer, jti="2"))
    clock.jump(2)
    unavailable(await desk.log_out(desk.issuer.signer, jti="3"))


async def test_a_new_key_counts_at_once_and_a_withdrawn_one_no_more(desk: Desk, clock: Clock) -> None:
    assert await desk.mint() == 200
    old, new = desk.issuer.signer, desk.issuer.new_signer()
    refused(await desk.log_out(new))
    desk.issuer.publish(new)
    clock.jump(COOLDOWN + 1)
    accepted(await desk.log_out(new))
    assert desk.issuer.asked(JWKS) == 2
    refused(await desk.log_out(old))
    desk.issuer.signer = new
    assert await desk.mint() == 401


async def test_logout_tokens_by_unknown_keys_cost_the_issuer_nothing(desk: Desk) -> None:
    accepted(await desk.log_out(desk.issuer.signer))
    for _ in range(20):
        refused(await desk.log_out(desk.issuer.new_signer()))
    assert desk.issuer.asked(JWKS) == 1
