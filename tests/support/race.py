"""One round of the race test: a user, two logins, two replicas, and every step of them in an order of our choice."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any, Protocol, Self

from redis.asyncio import Redis

from service.principal import Principal
from service.session import Limits
from service.store.connections import bounds
from service.store.records import SHARDS, UserKeys, due_shard
from service.upstream.authority.sessions import Authority
from support.gated import CLOCK, GatedIssuer, GatedRedis, Trouble
from support.interleave import Gate, Steps, VirtualLoop
from support.race_actors import Actors
from support.race_plan import IATS, Plan
from support.world import World

LONGEST = 3000
"""Steps after which a round is said to hang."""
REPLICAS = ("r1", "r2")
SWEEPS = 40
LEASE = 26.0
"""Seconds: longer than a lease of `World` stands."""
"""Rounds of sweeping after which the cancels are said not to end."""
ALICE = UserKeys.of("acme", "alice")
NO_LIMITS = Limits()


class RoundError(AssertionError):
    """The round could not be brought to an end."""


class Chooser(Protocol):
    """Chooses among the gates that wait: which to open; or how many seconds to let pass; or whom to crash."""

    def choose(self, gates: list[Gate], step: int, /) -> Gate | float | str: ...


class House:
    """The Redis clients of both replicas, one without gates, and the loop they run on; for many rounds."""

    def __init__(self, loop: VirtualLoop, raw: Redis, clients: dict[str, GatedRedis]) -> None:
        self.loop, self.raw, self.clients = loop, raw, clients
        self.loaded: set[str] = set()

    @classmethod
    async def build(cls, socket: Path) -> Self:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        clients = {name: GatedRedis(unix_socket_path=str(socket), **bounds(10.0)) for name in REPLICAS}
        return cls(loop, Redis(unix_socket_path=str(socket), **bounds(10.0)), clients)

    async def close(self) -> None:
        for client in (self.raw, *self.clients.values()):
            await client.aclose()


class Round:
    """Builds the parts, runs the actors under a chooser, sweeps until quiet. What came of it is for the verdict."""

    actors: Actors

    def __init__(self, house: House, plan: Plan, *, twice: bool = True, seed: object = 0) -> None:
        self.house, self.plan, self.seed = house, plan, seed
        self.steps = Steps(house.loop, twice=twice)
        self.trouble = Trouble()
        self.start = int(time.time()) + 0.5
        self.failing: set[str] = set()
        """The mints whose create fails."""
        self.statuses: dict[str, str] = {}
        """At the authority, at the end."""
        self.left: list[str] = []
        """What stands in the queue or on the due list at the end."""
        self.a = self._login(plan.sid_a, plan.iat_a)
        self.b = self._login(plan.sid_b, plan.iat_b)
        self._asked = 0
        house.loop.now = 0.0

    def clock(self) -> float:
        """Tell the time: each time a microsecond later, so that of two sessions one is always the older."""
        self._asked += 1
        return self.start + self.house.loop.now + self._asked / 1_000_000

    def _login(self, sid: str | None, iat: str) -> Principal:
        issued = self.start + IATS[iat]
        return Principal("acme", "alice", sid, issued, issued + 3600, claims={"sub": "alice"})

    async def play(self, chooser: Chooser) -> None:
        """Run the whole of it; nothing of it is left running."""
        try:
            await self.build()
            await self.set_up()
            await self.race(chooser)
            await self.finish()
        finally:
            await self.take_down()

    async def build(self) -> None:
        random.seed(str(self.seed))  # back-off is drawn
        await self.house.raw.flushdb()
        await self._set_clock()
        worlds: dict[str, World] = {}
        self.actors = Actors(self.steps, worlds)
        authority = Authority(self.house.raw, clock=self.clock)
        quiet = frozenset(due_shard(number) for number in range(SHARDS)) - {ALICE.due}
        for name, client in self.house.clients.items():
            client.set_up(self.steps, self.actors.named, quiet)
            worlds[name] = world = World(client, clock=self.clock)
            issuer = GatedIssuer(authority, world.metrics, clock=self.clock)
            issuer.steps, issuer.trouble, issuer.shorten = self.steps, self.trouble, self.actors.named
            issuer.created = self.actors.created
            world.upstream.inner, world.authority = issuer, authority
            for sha in client.scripts.keys() - self.house.loaded:
                await self.house.raw.script_load(client.scripts[sha])
                self.house.loaded.add(sha)

    async def set_up(self) -> None:
        """What stands before the race: live sessions, and perhaps a cancel that upstream has not confirmed."""
        plan = self.plan
        for number in range(plan.before_a + plan.backlog):
            await self.actors.mint(f"r1/a0{number}", self.a, NO_LIMITS, plan.seconds)
        for number in range(plan.before_b):
            await self.actors.mint(f"r2/b0{number}", self.b, NO_LIMITS, plan.seconds)
        if plan.backlog:
            self.trouble.cancels_fail = 1
            await self.actors.cancel_one("r1/backlog", self.a, self.standing()[0])
            await self._make_due()
        await self._settled()

    def standing(self) -> list[str]:
        """Return the sessions that were handed out, the oldest first."""
        return [each.ids[0] for each in self.steps.history if each.what == "answer" and each.ids]

    def start_actors(self) -> None:
        plan, chance, actors = self.plan, random.Random(f"places {self.seed}"), self.actors  # noqa: S311  (no secret)

        def place(name: str) -> str:
            return ("r1/" if plan.together else chance.choice(["r1/", "r2/"])) + name

        logout = place("logout")

        def fenced() -> bool:
            over = logout.partition("/")[0] in self.steps.dead or actors.tasks[logout].done()
            return over or any(each.what == "revoke" for each in self.steps.history)

        mints = [place(f"a{number + 1}") for number in range(plan.mints_a)]
        for name in mints:
            actors.mint(name, self.a, self.limits(), plan.seconds)
        for number in range(plan.mints_b):
            mints.append(place(f"b{number + 1}"))
            actors.mint(mints[-1], self.b, self.limits(), plan.seconds, fenced if plan.b_waits else None)
        self.failing = set(mints[: plan.refused + plan.lost])
        self.trouble.refused = set(mints[: plan.refused])
        self.trouble.lost = set(mints[plan.refused : plan.refused + plan.lost])
        self.trouble.cancels_fail, self.trouble.cancels_lost = plan.cancels_fail, plan.cancels_lost
        if plan.cancels_one and self.standing():
            actors.cancel_one(place("cancel"), self.a, self.standing()[-1])
        actors.log_out(logout, self.a, plan.scope)
        if plan.second_logout:
            actors.log_out(place("logout-2"), self.a if plan.second_logout == "a" else self.b, "login")
        for number in range(plan.sweeps):
            actors.sweep(f"{REPLICAS[1 - number % 2]}/sweep-{number + 1}")

    def limits(self) -> Limits:
        return Limits(live=self.plan.most_live, excess="refuse" if self.plan.refuse else "cancel_oldest")

    async def race(self, chooser: Chooser) -> None:
        """Open one gate at a time until every actor of a living replica has come to its end."""
        self.steps.open = False
        self.start_actors()
        for step in range(LONGEST):
            await self.steps.quiet()
            gates = self.steps.waiting()
            if not gates:
                if not self.actors.under_way():
                    return
                await self.tick(1.0)
                continue
            match chooser.choose(gates, step):
                case Gate() as gate:
                    self.steps.release(gate)
                case "leave":
                    self._caller_leaves()
                case str(replica):
                    self.steps.crash(replica)
                case float(seconds):
                    await self.tick(seconds)
        raise RoundError(f"the round does not end; {self.actors.under_way()}")

    def _caller_leaves(self) -> None:
        for actor, task in self.actors.tasks.items():
            if actor.endswith("/a1") and not task.done():
                self.steps.trace.append(f"— the caller of {actor} leaves")
                task.cancel()

    async def tick(self, seconds: float) -> None:
        """Let time pass: for Redis, upstream, both replicas and every deadline."""
        self.house.loop.now += seconds
        self.steps.trace.append(f"— {seconds} s pass")
        await self._set_clock()

    async def _set_clock(self) -> None:
        now = self.start + self.house.loop.now
        await self.house.raw.hset(CLOCK, mapping={"s": str(int(now)), "us": str(int(now % 1 * 1_000_000))})

    async def finish(self) -> None:
        """Sweep until nobody is due, look at what has become of every session, and mint once more with each login."""
        self.steps.release_all()
        living = [name for name in REPLICAS if name not in self.steps.dead]
        for turn in range(SWEEPS):
            await self._settled()
            if turn == SWEEPS // 2:
                await self.tick(LEASE)  # of a mint that crashed: until it lapses, its user stays listed
            await self._make_due()
            if not await self.house.raw.zcard(ALICE.due):
                break
            await self.worlds[living[turn % len(living)]].sweeper.once()
        else:
            raise RoundError("the cancels do not end")
        world = self.worlds[living[0]]
        self.statuses = {each: await world.status(each) for each in self.actors.owner}
        queued: Any = await self.house.raw.hkeys(ALICE.queue)
        self.left = [self.actors.named(each.decode()) for each in queued] + list(await world.due())
        self.trouble.refused = self.trouble.lost = set()
        for name in living:
            for login, who in (("a", self.a), ("b", self.b)):
                await self.actors.mint(f"{name}/{login}-afterwards", who, NO_LIMITS)

    @property
    def worlds(self) -> dict[str, World]:
        return dict(self.actors.worlds)

    async def _settled(self) -> None:
        """Wait for what nobody waits for, passing the time where it sleeps."""
        for _ in range(LONGEST):
            await self.steps.quiet()
            if not self.actors.under_way():
                return
            await self.tick(0.5)
        raise RoundError(f"what was begun does not end: {self.actors.under_way()}")

    async def _make_due(self) -> None:
        """Let the time of every entry of the due list come."""
        entries: Any = await self.house.raw.zrange(ALICE.due, 0, -1)
        if entries:
            await self.house.raw.zadd(ALICE.due, dict.fromkeys(entries, 0), xx=True)

    async def take_down(self) -> None:
        """End every task of the round; none passes another gate."""
        self.steps.closed = True
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
