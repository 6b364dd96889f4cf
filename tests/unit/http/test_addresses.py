"""Who drops the cookie is a new visitor, but still at the same address; and no header makes that another one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from structlog.testing import capture_logs

from service.serve import listen, serve
from unit.http.conftest import Open
from unit.http.house import SESSIONS, WWW, Browser, Login, cookies_of, everything, refused

VISITORS = {"origins": [WWW], "quota": {"address_mints": ["3/hour"]}}
ADDRESS = "192.0.2.1"


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    other = {**VISITORS, "origins": ["https://globex.example"]}
    return house(login.tenant(visitors=VISITORS), login.tenant("globex", visitors=other))


async def mint_from(app: Starlette, *addresses: str) -> list[int]:
    """Mint from each address as a new visitor."""
    return [(await Browser(app, address=address).mint()).status_code for address in addresses]


async def test_a_new_cookie_each_time_does_not_help(app: Starlette) -> None:
    assert await mint_from(app, *[ADDRESS] * 5) == [200, 200, 200, 429, 429]


async def test_the_refusal_says_when_to_come_back_and_gives_no_cookie(app: Starlette) -> None:
    await mint_from(app, *[ADDRESS] * 3)
    with capture_logs() as lines:
        answer = await Browser(app, address=ADDRESS).mint()
    assert refused(answer) == (429, "rate_limited")
    assert 1190 <= int(answer.headers["retry-after"]) <= 1200
    assert cookies_of(answer) == []
    (line,) = [line for line in lines if line["event"] == "request"]
    assert "address" in line["reason"]
    assert line["client"] == ADDRESS
    assert ADDRESS not in answer.text


async def test_other_addresses_tenants_and_users_are_not_affected(app: Starlette, login: Login) -> None:
    await mint_from(app, *[ADDRESS] * 4)
    assert await mint_from(app, "192.0.2.2", "::1") == [200, 200]
    assert (await Browser(app, origin="https://globex.example", address=ADDRESS).mint()).status_code == 200
    for _ in range(4):
        assert (await Browser(app, address=ADDRESS, token=login.token()).mint()).status_code == 200


async def test_users_mints_do_not_count_against_the_address(app: Starlette, login: Login) -> None:
    for _ in range(4):
        await Browser(app, address=ADDRESS, token=login.token()).mint()
    assert await mint_from(app, ADDRESS) == [200]


async def test_a_visitor_with_a_cookie_counts_too(app: Starlette) -> None:
    browser = Browser(app, address=ADDRESS)
    assert [(await browser.mint()).status_code for _ in range(4)] == [200, 200, 200, 429]
    browser.address = "192.0.2.2"
    assert (await browser.mint()).status_code == 200


async def test_lists_and_logouts_do_not_count(app: Starlette) -> None:
    browser = Browser(app, address=ADDRESS)
    await browser.mint()
    for _ in range(5):
        await browser.listed()
    await browser.log_out()
    assert await mint_from(app, ADDRESS, ADDRESS, ADDRESS) == [200, 200, 429]


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:0db8:0001:0002::1", "2001:db8:1:2::3"], "2001:db8:1:3::1"),
        ([ADDRESS, f"::ffff:{ADDRESS}", "::ffff:c000:201", ADDRESS], "::ffff:192.0.2.2"),
        (["fe80::1%eth0", "fe80::1%eth1", "fe80::2", "fe80::3"], "fe80:0:0:1::1"),
    ],
)
async def test_one_customers_addresses_are_one(app: Starlette, addresses: list[str], other: str) -> None:
    assert await mint_from(app, *addresses) == [200, 200, 200, 429]
    assert await mint_from(app, other) == [200]


async def test_several_windows_hold_together(house: Open, login: Login) -> None:
    quota = {"address_mints": ["9/hour", "2/second", "3/day"]}
    app = house(login.tenant(visitors={"origins": [WWW], "quota": quota}))
    assert await mint_from(app, *[ADDRESS] * 3) == [200, 200, 429]
    await asyncio.sleep(0.6)
    assert await mint_from(app, *[ADDRESS] * 2) == [200, 429]


async def test_there_is_a_limit_where_the_file_names_none(house: Open, login: Login) -> None:
    app = house(login.tenant(visitors={"origins": [WWW]}))
    assert await mint_from(app, *[ADDRESS] * 61) == [200] * 60 + [429]


async def test_no_address_is_stored(app: Starlette, redis: Redis) -> None:
    await mint_from(app, ADDRESS, "2001:db8:1:2::1")
    stored = await everything(redis)
    assert "address:" in stored
    assert ADDRESS not in stored
    assert "2001:db8" not in stored


@asynccontextmanager
async def served(app: Starlette, trusted: Sequence[str], host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The real listener, as `chatkit-mint serve` starts it; its URL on 127.0.0.1."""
    listener = listen(app, host, 0, option="--port", trusted_proxies=trusted)
    ready = asyncio.Event()
    control = app.state.control
    serving = asyncio.create_task(
        serve([listener], grace=1.0, ready=ready.set, draining=control.drain, reload=control.reload)
    )
    await ready.wait()
    try:
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def mint_through(url: str, *forwarded: str | None, name: str = "x-forwarded-for") -> list[int]:
    """Mint from here as a new visitor, each time with that header."""
    answers = []
    for value in forwarded:
        headers = {"origin": WWW} | ({name: value} if value is not None else {})
        async with httpx2.AsyncClient(base_url=url) as client:
            answers.append((await client.post(SESSIONS, headers=headers)).status_code)
    return answers


DIFFERENT = [f"203.0.113.{number}" for number in range(4)]


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8", "192.0.2.1", "::1"]])
@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded", "x-real-ip"])
async def test_a_header_from_anyone_changes_nothing(app: Starlette, trusted: list[str], name: str) -> None:
    async with served(app, trusted) as url:
        assert await mint_through(url, *DIFFERENT, name=name) == [200, 200, 200, 429]


async def test_uvicorns_own_variable_trusts_nobody(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with served(app, []) as url:
        assert await mint_through(url, *DIFFERENT) == [200, 200, 200, 429]
    async with served(app, ["10.0.0.1"]) as url:
        assert await mint_through(url, *DIFFERENT) == [429] * 4


@pytest.mark.parametrize("trusted", [["127.0.0.1"], ["127.0.0.0/8"]])
async def test_a_trusted_proxy_says_where_it_comes_from(app: Starlette, trusted: list[str]) -> None:
    async with served(app, trusted) as url:
        assert await mint_through(url, *DIFFERENT) == [200] * 4
        assert await mint_through(url, *[DIFFERENT[0]] * 3) == [200, 200, 429]
        assert await mint_through(url, *[None] * 4) == [200, 200, 200, 429]  # the proxy's own


async def test_what_the_caller_put_before_the_proxys_word_changes_nothing(app: Starlette) -> None:
    async with served(app, ["127.0.0.1", "10.0.0.0/8"]) as url:
        spoofed = [f"{spoof}, 203.0.113.9, 10.1.2.3" for spoof in ("1.1.1.1", "10.0.0.1", "127.0.0.1", "")]
        assert await mint_through(url, *spoofed) == [200, 200, 200, 429]


async def test_a_proxy_that_names_the_port_changes_nothing(app: Starlette) -> None:
    async with served(app, ["127.0.0.1"]) as url:
        named = [f"203.0.113.9:{port}" for port in (1, 2, 3, 4)]
        assert await mint_through(url, *named) == [200, 200, 200, 429]
        bracketed = [f"[2001:db8::{number}]:1" for number in (1, 2, 3, 4)]
        assert await mint_through(url, *bracketed) == [200, 200, 200, 429]


async def test_a_proxy_is_trusted_on_a_listener_for_both_kinds_of_address(app: Starlette) -> None:
    """With `CHATKIT_MINT_HOST=::` an IPv4 proxy comes as ::ffff:127.0.0.1."""
    async with served(app, ["127.0.0.1"], host="::") as url:
        assert await mint_through(url, *DIFFERENT) == [200] * 4
