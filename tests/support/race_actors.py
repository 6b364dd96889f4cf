"""Who takes part in a round of the race test: mints, logouts, cancels and sweeps, each in one of two replicas."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from service.errors import Refusal
from service.principal import Principal
from service.session import Limits
from support.interleave import ACTOR, Steps
from support.world import DAY, World


@dataclass
class MintRun:
    """One mint: whose, and what its caller got. `outcome` None: no answer, by a crash or since the caller left."""

    who: Principal
    began: int = -1
    """How much history there was when it began."""
    outcome: str | Refusal | None = None


@dataclass
class LogoutRun:
    """One logout: whose token asks (None: a service key), of which login (None: all), and whether it answered."""

    who: Principal | None
    login: str | None
    answered: bool = False
    left_live: list[str] = field(default_factory=list)
    """Sessions of the login, recorded before the fence and live when the answer said that none is pending."""


class Actors:
    """Starts them by name (`replica/name`), and keeps what came of each."""

    def __init__(self, steps: Steps, worlds: Mapping[str, World]) -> None:
        self.steps, self.worlds = steps, worlds
        self.mints: dict[str, MintRun] = {}
        self.logouts: dict[str, LogoutRun] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.owner: dict[str, str] = {}
        """Who created a session."""
        self.short: dict[str, str] = {}
        """A session's name in traces."""
        self.unexpected: list[str] = []

    def created(self, session_id: str) -> None:
        """Take down who created a session."""
        actor = ACTOR.get()
        self.owner[session_id] = actor
        count = sum(each == actor for each in self.owner.values())
        self.short[session_id] = actor.partition("/")[2] + ("" if count == 1 else f"#{count}")

    def named(self, session_id: str) -> str:
        return self.short.get(session_id, session_id)

    def under_way(self) -> list[str]:
        """Return what of the living replicas has not come to its end, those that nobody waits for included."""
        living = {name: world for name, world in self.worlds.items() if name not in self.steps.dead}
        spawned = [
            f"{name}: {task.get_coro()}"
            for name, world in living.items()
            for task in (*world.canceller._running, *world.mint._running)
            if not task.done()
        ]
        return spawned + [
            actor for actor, task in self.tasks.items() if not task.done() and actor.partition("/")[0] in living
        ]

    def mint(
        self, actor: str, who: Principal, limits: Limits, seconds: int = 600, ready: Callable[[], bool] | None = None
    ) -> asyncio.Task[None]:
        run = self.mints[actor] = MintRun(who)

        async def work(world: World) -> None:
            run.began = len(self.steps.history)
            try:
                result = await world.mint(who, world.grant("acme", limits, seconds))
            except Refusal as refusal:
                outcome: str | Refusal = refusal
            else:
                outcome = result.minted.session.id
            if not self._dead(actor):
                run.outcome = outcome
                self.steps.happened("answer", (outcome,) if isinstance(outcome, str) else ())

        return self._begin(actor, work, ready)

    def log_out(self, actor: str, who: Principal, scope: str) -> asyncio.Task[None]:
        by_key = scope == "service"
        run = self.logouts[actor] = LogoutRun(None if by_key else who, who.login if scope == "login" else None)

        async def work(world: World) -> None:
            if by_key:
                report = await world.log_out.user("acme", "alice", remember=DAY)
            else:
                report = await world.log_out(who, everywhere=scope == "everywhere", remember=DAY)
            if self._dead(actor):
                return
            run.answered = True
            if not report.pending:
                run.left_live = await self._left_live(actor, run)

        return self._begin(actor, work)

    async def _left_live(self, actor: str, run: LogoutRun) -> list[str]:
        fence = next((each.at for each in self.steps.history if each.actor == actor and each.what == "revoke"), 0)
        found = []
        for each in self.steps.history[:fence]:
            if each.what == "record" and each.answer[0] == b"ok":
                owner = self.mints[self.owner[each.ids[0]]]
                with self.steps.busy():
                    if run.login in (None, owner.who.login) and await self._active(each.ids[0]):
                        found.append(each.ids[0])
        return found

    async def _active(self, session_id: str) -> bool:
        return await self.worlds["r1"].status(session_id) == "active"

    def cancel_one(self, actor: str, who: Principal, session_id: str) -> asyncio.Task[None]:
        async def work(world: World) -> None:
            await world.log_out.one(who, session_id)

        return self._begin(actor, work)

    def sweep(self, actor: str) -> asyncio.Task[None]:
        async def work(world: World) -> None:
            await world.sweeper.once()

        return self._begin(actor, work)

    def _begin(
        self, actor: str, work: Callable[[World], Awaitable[None]], ready: Callable[[], bool] | None = None
    ) -> asyncio.Task[None]:
        async def run() -> None:
            ACTOR.set(actor)
            if ready:
                await self.steps.gate("begins", frozenset(), ready=ready)
            try:
                with contextlib.suppress(Refusal):
                    await work(self.worlds[actor.partition("/")[0]])
            except Exception as error:  # noqa: BLE001  (none is expected: each is a finding)
                self.unexpected.append(f"{actor}: {error!r}")

        self.tasks[actor] = task = asyncio.create_task(run())
        return task

    def _dead(self, actor: str) -> bool:
        return actor.partition("/")[0] in self.steps.dead
