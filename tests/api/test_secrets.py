"""Client secrets, API keys and bearer tokens: in the request or the answer that carries them, and nowhere else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from api.parts import AUTHORITY_DB, SERVICE_DB, RedisServer, eventually
from api.stack import API_KEYS, Caller, Fragile, Service, Someone

pytestmark = pytest.mark.process

LOOKS_SECRET = re.compile(rb"ek_[\w-]{20,}|eyJ[\w-]{10,}|sk-(acme|globex)")


def everything_in(client: Redis) -> Iterator[bytes]:
    """Every key of the database and every value, of whatever type. One whose time is up meanwhile holds nothing."""
    for key in client.scan_iter(count=1000):
        yield key
        kind = client.type(key)
        held: Any
        match kind:
            case b"string":
                held = [client.get(key) or b""]
            case b"hash":
                held = [part for pair in client.hgetall(key).items() for part in pair]
            case b"set":
                held = client.smembers(key)
            case b"zset":
                held = client.zrange(key, 0, -1)
            case b"list":
                held = client.lrange(key, 0, -1)
            case b"stream":
                held = [repr(client.xrange(key)).encode()]
            case b"none":
                held = []
            case _:
                raise AssertionError(f"{key!r} is a {kind!r}, which this test can't read")
        yield from held


def assert_clean(held: bytes, secrets: set[str], where: str) -> None:
    for secret in secrets:
        # The end of it too: a cut-off token is still half a token.
        assert secret.encode() not in held, where
        assert secret[-24:].encode() not in held, where
    assert not LOOKS_SECRET.search(held), f"{where}: {LOOKS_SECRET.search(held)}"


def a_day_at_work(callers: list[Caller]) -> set[str]:
    """Do everything that touches a secret, the refused and the failed included; return the secrets."""
    secrets = set(API_KEYS.values())
    for caller in callers:
        token = caller.token
        secrets.add(token)
        headers = {"authorization": f"Bearer {token}"}
        for body in ({}, {"user": "mallory"}, {"colour": "red"}, {"user": token[:400]}):
            answer = caller.service.http.post("/v1/chatkit/sessions", headers=headers, json=body)
            if answer.status_code == 200:
                secrets.add(answer.json()["client_secret"])
        caller.service.http.post("/v1/chatkit/sessions", headers={"authorization": f"Basic {token}"})
        caller.service.http.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}x"})
        caller.service.http.get("/v1/chatkit/sessions", headers=headers)
        caller.service.http.post("/v1/logout", headers=headers)
        caller.service.http.post("/v1/chatkit/sessions", headers=headers)
    return secrets


@pytest.fixture
def secrets(someone: Someone) -> set[str]:
    tenants = ("acme", "globex", "open", "tight", "lost", "failing", "limited", "nowhere", "dropping")
    found = a_day_at_work([someone(tenant) for tenant in tenants])
    # What is still live has left traces that a logout would have wiped away.
    found |= {someone(tenant).minted()["client_secret"] for tenant in ("acme", "open")}
    assert len([each for each in found if each.startswith("ek_")]) >= 6
    return found


@pytest.mark.parametrize("db", [SERVICE_DB, AUTHORITY_DB], ids=["service", "authority"])
def test_redis_holds_no_secret(secrets: set[str], redis_server: RedisServer, db: int) -> None:
    with redis_server.client(db) as client:
        held = list(everything_in(client))
    assert len(held) > 20
    for each in held:
        assert_clean(each, secrets, f"Redis: {each[:100]!r}")


def test_the_log_holds_no_secret(secrets: set[str], service: Service) -> None:
    log = service.process.text()
    assert log.count("\n") > 50
    for line in log.splitlines():
        assert_clean(line.encode(), secrets, line)


def test_the_metrics_hold_no_secret_and_no_name_that_a_caller_chose(
    secrets: set[str], service: Service, someone: Someone
) -> None:
    alice = someone()
    session = alice.minted()
    alice.get("/v1/chatkit/sessions/of-my-own-choosing")
    alice.service.http.request("PROPFIND", "/v1/chatkit/sessions")
    metrics = service.ops("/metrics").content
    assert len(metrics) > 1000
    assert_clean(metrics, secrets, "/metrics")
    for chosen in (
        alice.subject,
        session["id"],
        "of-my-own-choosing",
        "PROPFIND",
        service.operations,
        alice.issuer.url,
    ):
        assert chosen.encode() not in metrics


def test_readyz_holds_no_secret(secrets: set[str], service: Service) -> None:
    assert_clean(service.ops("/readyz").content, secrets, "/readyz")


def test_a_failing_redis_lets_no_secret_into_the_log(fragile: Fragile) -> None:
    callers = [fragile.someone(tenant) for tenant in ("acme", "lost", "open")]
    secrets = a_day_at_work(callers)
    fragile.redis.stop()
    secrets |= a_day_at_work(callers[:2])
    assert eventually(lambda: "store_unavailable" in fragile.service.process.text())
    for line in fragile.service.process.text().splitlines():
        assert_clean(line.encode(), secrets, line)
