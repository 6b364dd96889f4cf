"""The Lua scripts beside this file, loaded once, and how several of them are run in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

_LUA: Final = files("service.store") / "lua"


def lua(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Call:
    """A script with its keys, all of one slot, and its arguments."""

    script: AsyncScript
    keys: Sequence[str]
    args: Sequence[str | int]


async def run_in_order(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Run the scripts one after the other and return their answers: one round trip, but for a Cluster's many nodes."""
    async with redis.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
        answers = await pipe.execute(raise_on_error=False)
    for index, answer in enumerate(answers):
        if isinstance(answer, NoScriptError):
            # A Redis that restarted. From here on all again: the order is what they rely on, and all but the first
            # may be repeated.
            return answers[:index] + [await call.script(call.keys, call.args) for call in calls[index:]]
        if isinstance(answer, Exception):
            raise answer
    return answers
