"""One crash run: start everything, kill again and again under load, let it come to rest, balance the accounts."""

import asyncio
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api.parts import AUTHORITY_DB, SERVICE_DB, RedisServer
from service.store.records import SHARDS, due_shard
from service.upstream.authority import sessions as authority_sessions
from service.upstream.authority.sessions import Authority
from support.crash.accounts import Accounts, balance
from support.crash.load import PATIENCE, Load
from support.crash.replicas import Replicas
from support.crash.witness import Witness
from support.processes import Process, clean_environ
from support.tenants import tenant_file, write_config
from support.tokens import Signer

LIFE: Final = (0.020, 0.300)
"""Seconds from when a process listens until it is killed: any moment between them."""
QUIET_WITHIN: Final = 120.0
"""Seconds in which the sweeper is done: a killed sweeper's users stay hidden for half a minute."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    *answers* are what clients must have got from the processes before one is killed, however busy the machine.
    *hurry* makes hidden users due at once when the kills are over, as if the time had passed.
    """

    kills: int
    replicas: int = 1
    clients: int = 12
    pause: float = 0.0
    seed: int = 0
    answers: int = 0
    hurry: bool = False
    in_process: bool = False
    """Whether the service is its own upstream, on its own Redis."""


async def crash(plan: Plan, home: Path, *, tell: Callable[[str], None] = lambda _: None) -> Accounts:
    """Run *plan* with all its files in *home*; *tell* hears how far it is."""
    with ExitStack() as stack:
        server = RedisServer(home / "redis")
        stack.callback(server.stop)
        witness = Witness(server.client(), str(server.socket), service_db=SERVICE_DB, authority_db=AUTHORITY_DB)
        signer = Signer()
        upstream: dict[str, Any] = {"kind": "authority"}
        if not plan.in_process:
            authority = _authority(home, server.url(AUTHORITY_DB))
            stack.callback(authority.stop)
            base_url = (await asyncio.to_thread(authority.wait_for, r"ready: (http\S+)\n"))[1]
            upstream = {"kind": "openai", "base_url": base_url, "api_key": {"env": "CRASH_KEY"}}
        config = write_config(home / "config", *_tenants(signer, upstream))
        environ = {
            "CHATKIT_MINT_CONFIG_DIR": str(config),
            "CHATKIT_MINT_REDIS_URL": server.url(SERVICE_DB),
            "CHATKIT_MINT_PORT": "0",
            "CHATKIT_MINT_OPS_PORT": "0",
            "CRASH_KEY": "sk-crash",
        }
        replicas = Replicas(home, environ, count=plan.replicas)
        stack.callback(replicas.stop)
        accounts = await _run(plan, server, replicas, signer, witness, tell)
        accounts.check("line in a log that should not be there", replicas.errors)
        return accounts


async def _run(
    plan: Plan, server: RedisServer, replicas: Replicas, signer: Signer, witness: Witness, tell: Callable[[str], None]
) -> Accounts:
    chance = random.Random(plan.seed)  # noqa: S311  (repeatable, guards nothing)
    load = Load(replicas, signer, chance, clients=plan.clients, pause=plan.pause)
    hit = 0

    async def kill_and_kill() -> None:
        nonlocal hit
        for number in range(1, plan.kills + 1):
            before = load.answered
            await asyncio.sleep(chance.uniform(*LIFE))
            await _until(lambda: load.answered >= before + plan.answers)  # noqa: B023  (called in this turn only)
            hit += bool(load.under_way)
            await replicas.restart(chance.choice(replicas.all))
            if number % max(1, plan.kills // 20) == 0:
                tell(f"{number} kills, {len(load.asked)} requests answered or cut off")
        await asyncio.sleep(LIFE[1])  # the last ones live on

    await replicas.start()
    await load.run(kill_and_kill)
    tell("no more requests; waiting until nothing is due")
    with server.client(SERVICE_DB) as redis:
        took = await _quiet(redis, hurry=plan.hurry)
        await asyncio.to_thread(replicas.stop)
        await asyncio.to_thread(witness.close)
        sessions = await _sessions(server.url(SERVICE_DB if plan.in_process else AUTHORITY_DB))
        accounts = balance(load, witness, redis, sessions, kills=plan.kills)
    accounts.counts |= {"kills with requests under way": hit, "requests that found nobody listening": load.unreached}
    accounts.counts["seconds until all was quiet"] = round(took)
    return accounts


def _authority(home: Path, redis_url: str) -> Process:
    command = [sys.executable, str(Path(__file__).with_name("upstream.py")), redis_url]
    return Process(output=home / "upstream.log", environ=clean_environ(), command=command)


def _tenants(signer: Signer, upstream: dict[str, Any]) -> list[dict[str, Any]]:
    def tenant(name: str, **sections: Any) -> dict[str, Any]:
        identity = {"issuer": signer.issuer, "audience": name, "algorithms": [signer.alg], "jwks": signer.jwks}
        return tenant_file(
            name,
            identity,
            upstream=upstream,
            session={"workflow": {"id": "wf", "state_variables": {"login": "${claims.name}"}}},
            **sections,
        )

    return [tenant("plain"), tenant("rolling", quota={"live_sessions": {"max": 3, "excess": "cancel_oldest"}})]


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110  (a count, and no event)
            await asyncio.sleep(0.002)


async def _quiet(redis: Redis, *, hurry: bool) -> float:
    """Wait until no user is due, and return how long that took, in seconds."""
    started = time.monotonic()
    shards = [due_shard(number) for number in range(SHARDS)]
    due: dict[str, list[Any]]
    while due := {shard: users for shard in shards if (users := cast("list[Any]", redis.zrange(shard, 0, -1)))}:
        assert time.monotonic() < started + QUIET_WITHIN, f"still due: {due}"
        if hurry:
            _let_time_pass(redis, due)
        await asyncio.sleep(1.0)
    return time.monotonic() - started


def _let_time_pass(redis: Redis, due: Mapping[str, Sequence[Any]]) -> None:
    """Make every user due now, and let the leases lapse: no mint is under way, they are those of killed ones."""
    for shard, users in due.items():
        redis.zadd(shard, dict.fromkeys(users, 0), xx=True)
    for key in redis.scan_iter("cm:{*}:live", count=1000):
        lines = cast("bytes", redis.get(key) or b"")
        if lines != (left := re.sub(rb"\n~[^\n]*", b"", lines)):
            redis.set(key, left, keepttl=True, xx=True)


async def _sessions(redis_url: str) -> Mapping[str, Mapping[str, Any]]:
    """Return all that the authority has on record, with the status that was written last, whatever the time is."""
    patience, authority_sessions.PATIENCE = authority_sessions.PATIENCE, 60.0  # there may be tens of thousands
    try:
        async with AsyncRedis.from_url(redis_url) as redis:
            return {each["id"]: each for each in await Authority(redis, clock=lambda: 0.0).sessions()}
    finally:
        authority_sessions.PATIENCE = patience
