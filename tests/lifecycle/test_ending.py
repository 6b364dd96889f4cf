"""How the service ends: it says so first, answers all that was sent to it, and hands back what it had taken on."""

import asyncio
import dataclasses
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse

import httpx2
import pytest

from api.parts import eventually
from api.stack import Caller
from lifecycle.conftest import Start, Surroundings
from support.house import House, descendants

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

ONE, TWO = {"CHATKIT_MINT_WORKERS": "1"}, {"CHATKIT_MINT_WORKERS": "2"}
both = pytest.mark.parametrize("workers", [ONE, TWO], ids=["one process", "two workers"])
MINT = "/v1/chatkit/sessions"


def someone(house: House, around: Surroundings, tenant: str = "acme") -> Caller:
    return Caller(house.service, around.issuer, tenant, f"user-{time.monotonic_ns()}")


def end(house: House) -> None:
    os.kill(house.parent, signal.SIGTERM)


def ended(house: House) -> int:
    return house.service.process.popen.wait(timeout=40)


@both
def test_it_says_so_while_it_still_takes_connections(
    start: Start, around: Surroundings, workers: dict[str, str]
) -> None:
    house = start(**workers, CHATKIT_MINT_SHUTDOWN_DELAY="1.5")
    answer = house.service.ops("/readyz")
    assert (answer.status_code, answer.json()["checks"]["draining"]) == (200, {"ok": True})
    began = time.monotonic()
    end(house)
    eventually(lambda: house.service.ops("/readyz").status_code == 503)
    assert time.monotonic() - began < 0.5
    assert house.service.ops("/readyz").json()["checks"]["draining"] == {"ok": False}
    while time.monotonic() < began + 1.3:
        answer = httpx2.post(house.service.url + MINT, headers=someone(house, around).headers, trust_env=False)
        # Answered, and asked to come back on another connection, which the load balancer takes elsewhere.
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert ended(house) == 0
    assert 1.5 < time.monotonic() - began < 4
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(house.service.url, trust_env=False)


@pytest.mark.parametrize(("workers", "delay"), [(ONE, "0"), (TWO, "0"), (TWO, "0.3")])
def test_on_a_kept_connection_each_request_is_answered_or_refused_before_it_is_sent(
    start: Start, around: Surroundings, workers: dict[str, str], delay: str
) -> None:
    house = start(**workers, CHATKIT_MINT_SHUTDOWN_DELAY=delay)
    answered = []

    def ask_until_refused(pause: float) -> str:
        with httpx2.Client(base_url=house.service.url, timeout=20.0, trust_env=False) as http:
            while True:
                try:
                    answer = http.post(MINT, headers=someone(house, around).headers)
                except httpx2.ConnectError:
                    return "refused"
                assert answer.status_code == 200, answer.text
                answered.append(answer.headers.get("connection"))
                time.sleep(pause)

    with ThreadPoolExecutor(8) as pool:
        # Some ask all the time, some now and then.
        asking = [pool.submit(ask_until_refused, pause) for pause in (0, 0, 0, 0, 0.05, 0.1, 0.3, 0.6)]
        eventually(lambda: len(answered) > 50)
        end(house)
        assert {each.result() for each in asking} == {"refused"}
    assert ended(house) == 0
    assert "close" in answered


@both
def test_what_comes_late_on_an_idle_connection_is_answered(
    start: Start, around: Surroundings, workers: dict[str, str]
) -> None:
    """The caller sent it when it could not know that nobody listens any more."""
    house = start(**workers)
    connection = HTTPConnection(house.service.url.removeprefix("http://"), timeout=20)

    def asked() -> HTTPResponse:
        connection.request("POST", MINT, headers=someone(house, around).headers)
        answer = connection.getresponse()
        answer.read()
        return answer

    assert asked().status == 200
    there = connection.sock
    end(house)
    eventually(lambda: refused(house))
    assert connection.sock is there, "it is still the same"
    late = asked()
    assert (late.status, late.headers["connection"]) == (200, "close")
    assert ended(house) == 0


@both
async def test_with_200_mints_under_way_all_are_answered(
    start: Start, around: Surroundings, workers: dict[str, str]
) -> None:
    house = start(**workers)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=house.service.url, timeout=30.0, limits=limits, trust_env=False) as http:
        callers = [Caller(house.service, around.issuer, "slower", f"user-{number}") for number in range(200)]
        minting = [asyncio.create_task(http.post(MINT, headers=caller.headers)) for caller in callers]
        async with asyncio.timeout(10):
            while around.redis.leases("slower") < 200:  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(0.01)
        end(house)
        answers = await asyncio.gather(*minting)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    statuses = [await asyncio.to_thread(around.upstream.status, answer.json()["id"]) for answer in answers[::20]]
    assert set(statuses) == {"active"}
    assert await asyncio.to_thread(ended, house) == 0


@both
def test_who_waits_to_be_accepted_when_the_end_comes_is_answered(
    start: Start, around: Surroundings, workers: dict[str, str]
) -> None:
    house = start(**workers)
    processes = descendants(house.parent) or [house.parent]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    waiting = [sent(house, someone(house, around)) for _ in range(100)]
    end(house)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    assert [answer.partition(b"\r\n")[0] for answer in map(read, waiting)] == [b"HTTP/1.1 200 OK"] * 100
    assert ended(house) == 0


def sent(house: House, caller: Caller) -> socket.socket:
    """Send a mint on a connection of its own, which nobody has accepted."""
    host, port = house.service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST {MINT} HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {caller.token}\r\ncontent-length: 0\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def refused(house: House) -> bool:
    """Whether nobody listens any more."""
    host, port = house.service.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) != 0


def read(connection: socket.socket) -> bytes:
    """Return all that comes until the other end closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@both
def test_a_mint_whose_caller_is_cut_off_by_the_end_is_recorded_all_the_same(
    start: Start, around: Surroundings, workers: dict[str, str]
) -> None:
    """Nobody holds its secret, but the session is there: it must be known to who logs the user out."""
    house = start(**workers, CHATKIT_MINT_SHUTDOWN_GRACE="1")
    caller = someone(house, around, "slow")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(caller.mint)
        eventually(lambda: around.redis.leases("slow") == 1)
        end(house)
        assert minting.exception() or minting.result().status_code >= 500
    assert ended(house) == 0
    again = dataclasses.replace(caller, service=start().service)
    known = again.live()
    assert [around.upstream.status(session) for session in known] == ["active"]
    assert again.log_out().json() == {"cancelled": 1, "pending": 0}
    assert [around.upstream.status(session) for session in known] == ["cancelled"]
