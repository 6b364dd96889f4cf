"""A Redis client and an upstream whose every call waits at a gate, whoever makes it and whatever it is."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript

from service.contract import CreateSession
from service.errors import UpstreamTimeout, UpstreamUnavailable
from service.session import Account, Minted, Session
from service.store.scripts import lua
from service.upstream.authority.issuer import AuthoritySessions
from support.interleave import ACTOR, Steps

CLOCK: Final = "race:clock"
"""Where scripts find the time instead: its seconds and microseconds."""
UPSTREAM_TIMEOUT: Final = 10.0
"""Seconds for a call upstream, as the real client has them."""
SCRIPTS: Final = {
    lua(name): name
    for name in (entry.name.removesuffix(".lua") for entry in (files("service.store") / "lua").iterdir())
}


def on_our_clock(script: str) -> str:
    """Return the script reading the time from `CLOCK`: Redis's own can't be moved."""
    ours = script.replace("redis.call('TIME')", f"redis.call('HMGET', '{CLOCK}', 's', 'us')")
    if "TIME'" in ours or 'TIME"' in ours:
        raise AssertionError("a script reads the time in a way that this test does not know")
    return ours


class GatedRedis(Redis):
    """One replica's client. A call is one step; so is its answer. *ours* tells the keys that matter to anybody here."""

    steps: Steps
    names: dict[str, str]
    scripts: dict[str, str]
    shorten: Callable[[str], str]
    quiet_keys: frozenset[str]

    def set_up(self, steps: Steps, shorten: Callable[[str], str], quiet_keys: frozenset[str]) -> None:
        """Take the round's gates; *shorten* gives a session's short name, *quiet_keys* are those nobody writes."""
        self.steps, self.shorten, self.quiet_keys = steps, shorten, quiet_keys
        self.names, self.scripts = {}, {}

    def register_script(self, script: Any) -> AsyncScript:  # type: ignore[override]
        text = on_our_clock(script)
        sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  (Redis's name for it)
        self.names[sha], self.scripts[sha] = SCRIPTS.get(script, "script"), text
        return super().register_script(text)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        what, keys = self._read(args)
        if keys <= self.quiet_keys or what in {"SCRIPT LOAD", "CLIENT SETINFO"}:
            with self.steps.busy():
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        ids = tuple(each for each in map(_text, args) if each.startswith("cksess_"))
        # Sorted, since Redis gives a hash's fields in an order that differs from run to run.
        label = " ".join([what, *sorted(map(self.shorten, ids))])
        await self.steps.gate(label, keys)
        with self.steps.busy():
            answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.steps.happened(what, ids, answer)
        await self.steps.answered(label, keys)
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "GatedPipeline":
        return GatedPipeline(self, transaction=transaction, shard_hint=shard_hint)

    def _read(self, args: tuple[Any, ...]) -> tuple[str, frozenset[str]]:
        """Return what a command is called in traces, and the keys that it touches."""
        if str(args[0]).upper() in {"EVALSHA", "EVAL"}:
            return self.names.get(_text(args[1]), "script"), frozenset(map(_text, args[3 : 3 + int(args[2])]))
        return str(args[0]).upper(), frozenset(map(_text, args[1:2]))


class GatedPipeline(Pipeline):
    """Each command is a step of its own, since others' may come between; a transaction is one step."""

    def __init__(self, client: GatedRedis, *, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.is_transaction or self.explicit_transaction:
            steps = self._client.steps
            read = [self._client._read(args) for args, _ in self.command_stack]
            what = "+".join(each for each, _ in read)
            keys = frozenset[str]().union(*(each for _, each in read))
            await steps.gate(what, keys)
            with steps.busy():
                answer: list[Any] = await super().execute(raise_on_error)
            steps.happened(what, (), answer)
            await steps.answered(what, keys)
            return answer
        commands, answers = list(self.command_stack), []
        await self.reset()  # type: ignore[no-untyped-call]
        for args, options in commands:
            try:
                answers.append(await self._client.execute_command(*args, **options))
            except Exception as error:  # noqa: BLE001  (as the real one does: told at the end)
                answers.append(error)
        failed = next((each for each in answers if isinstance(each, Exception)), None)
        if failed and raise_on_error:
            raise failed
        return answers


@dataclass
class Trouble:
    """What goes wrong upstream in one round. Creates are named by their actor, cancels only counted."""

    refused: set[str] = field(default_factory=set)
    """Creates that fail with nothing created."""
    lost: set[str] = field(default_factory=set)
    """Creates whose answer is lost."""
    cancels_fail: int = 0
    """The first so many cancels fail."""
    cancels_lost: int = 0
    """The next so many are done, and their answer is lost."""

    def take(self, name: str) -> bool:
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


class GatedIssuer(AuthoritySessions):
    """The authority behind gates. It has a Redis client without any, so no crash of a replica harms it."""

    steps: Steps
    trouble: Trouble
    shorten: Callable[[str], str]
    created: Callable[[str], None]

    async def create(self, account: Account, body: CreateSession) -> Minted:
        actor = ACTOR.get()
        keys = frozenset({f"upstream:{actor}"})
        try:
            async with asyncio.timeout(UPSTREAM_TIMEOUT):
                await self.steps.gate("create", keys)
                if actor in self.trouble.refused:
                    raise UpstreamUnavailable("refused, as the test says")
                with self.steps.busy():
                    minted = await super().create(account, body)
                self.created(minted.session.id)
                self.steps.happened("create", (minted.session.id,))
                await self.steps.answered("create", keys)
        except TimeoutError:
            raise UpstreamTimeout("held at a gate") from None
        if actor in self.trouble.lost:
            raise UpstreamUnavailable("answer lost, as the test says")
        self.steps.happened("created", (minted.session.id,))
        return minted

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        label, keys = f"cancel {self.shorten(session_id)}", frozenset({f"upstream:{self.shorten(session_id)}"})
        try:
            async with asyncio.timeout(UPSTREAM_TIMEOUT):
                await self.steps.gate(label, keys)
                if self.trouble.take("cancels_fail"):
                    self.steps.happened("cancel fails", (session_id,))
                    raise UpstreamUnavailable("as the test says")
                with self.steps.busy():
                    session = await super().cancel(account, session_id)
                self.steps.happened("cancel", (session_id,))
                await self.steps.answered(label, keys)
        except TimeoutError:
            raise UpstreamTimeout("held at a gate") from None
        if self.trouble.take("cancels_lost"):
            raise UpstreamUnavailable("answer lost, as the test says")
        return session


def _text(word: Any) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)
