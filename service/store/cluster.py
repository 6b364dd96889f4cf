"""A client of a Redis Cluster: plain clients, one a node, and the map that says which of them owns a slot.

redis-py has a cluster client of its own; docs/decisions/0011 says what ours does otherwise.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from service.redis_url import Address

HOPS: Final = 8
"""Redirections that one command follows; past it the nodes contradict each other."""
PAUSE: Final = 0.02
"""Seconds before a command is repeated whose keys are being moved."""
LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at the map: a node that is gone fails many callers at once."""
SCRIPT_CALLS: Final = frozenset({"EVAL", "EVALSHA"})
UNKEYED: Final = frozenset({"CONFIG", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "SCAN", "SCRIPT"})


class Cluster(Redis):
    """Sends each command to the node that owns its key. *client_of* makes a node's client; *patience* is in seconds.

    Looking at the map is nobody's request's work: it goes on in the background when the request that found it wrong has
    no time left, and asks every node at once, since a dead one does not answer, not even with an error.
    """

    def __init__(self, seeds: Iterable[Address], client_of: Callable[[Address], Redis], *, patience: float) -> None:
        super().__init__()  # its own pool never connects
        self._seeds = tuple(seeds)
        self._client_of = client_of
        self._patience = patience
        self._clients: dict[Address, Redis] = {}
        self._owners: dict[int, Address] = {}
        self._scripts: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._trouble: Exception | None = None
        """Why a node did not answer, the last time that one didn't."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See redis-py. Of a script that its node does not know, the text is sent."""
        if args[0] == "PING":
            return await self._is_up()
        slot = self._slot(args)
        try:
            return await self._run(slot, args, options)
        except (RedisConnectionError, ClusterDownError):
            self._look()
            raise
        except asyncio.CancelledError:
            self._look()  # out of time: the node may be dead, and never say so
            raise

    def register_script(self, script: Any) -> AsyncScript:  # type: ignore[override]
        """See redis-py."""
        registered = super().register_script(script)
        self._scripts[registered.sha] = script
        return registered

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002  (redis-py's)
        """Return a pipeline that sends its commands one after the other; there are no transactions."""
        if transaction:
            raise ClusterError("a transaction would span slots")
        return _Turns(self, shard_hint)

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """See redis-py: the keys of every primary."""
        for client in await self.primaries():
            async for key in client.scan_iter(*args, **options):
                yield key

    async def primaries(self) -> list[Redis]:
        """Return a client of every node that owns slots."""
        await self._known()
        return [self._client(address) for address in dict.fromkeys(self._owners.values())]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  (redis-py's)
        """Close all connections."""
        self._closed = True
        tasks = [*self._leaving, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clients, self._clients, self._owners = self._clients, {}, {}
        await asyncio.gather(*(client.aclose() for client in clients.values()), return_exceptions=True)
        await super().aclose(close_connection_pool)

    def _slot(self, args: tuple[Any, ...]) -> int:
        command = str(args[0]).upper()
        keys = args[3 : 3 + int(args[2])] if command in SCRIPT_CALLS else args[1:2]
        if not keys or command.partition(" ")[0] in UNKEYED:
            raise ClusterError(f"{command} has no key that would say which node it is for")
        return key_slot(keys[0].encode() if isinstance(keys[0], str) else bytes(keys[0]))

    async def _run(self, slot: int, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        try:
            return await self._follow(slot, args, options)
        except NoScriptError:
            if args[1] not in self._scripts:
                raise
        # Not SCRIPT LOAD: that would be one more round trip, and redis-py's own loads into every primary or fails.
        return await self._follow(slot, ("EVAL", self._scripts[args[1]], *args[2:]), options)

    async def _follow(self, slot: int, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        await self._known()
        address, asking = self._owners.get(slot), False
        if address is None:
            raise ClusterDownError("a slot has no owner")
        for _ in range(HOPS):
            try:
                return await self._send(address, args, options, asking=asking)
            except MovedError as error:
                # A node that does not know its own name gives the port alone.
                address, asking = (error.host or address[0], error.port), False
                self._owners[slot] = address
                self._look()
            except AskError as error:
                address, asking = (error.host or address[0], error.port), True
            except TryAgainError:
                await asyncio.sleep(PAUSE)
        raise ClusterError("redirected too often")

    async def _send(self, address: Address, args: tuple[Any, ...], options: Mapping[str, Any], *, asking: bool) -> Any:
        client = self._client(address)
        if not asking:
            return await _call(client, *args, **options)
        # ASKING holds for the next command of the same connection.
        async with client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*args, **options)
            _, answer = await pipe.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _client(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = self._client_of(address)
        return self._clients[address]

    async def _is_up(self) -> bool:
        """Ask one node after the other whether the cluster answers; raise `ClusterDownError` where it says no."""
        for client in await self.primaries():
            try:
                told = await _call(client, "CLUSTER INFO")
            except (RedisError, OSError):
                continue
            if told.get("cluster_state") != "ok":
                raise ClusterDownError("the cluster says that it is down")
            return True
        self._look()
        raise RedisConnectionError("no node of the cluster answers") from self._trouble

    async def _known(self) -> None:
        """Wait for a map, where there is none yet."""
        if not self._owners:
            await asyncio.shield(self._look())
        if not self._owners:
            raise RedisConnectionError("no node of the cluster answers") from self._trouble

    def _look(self) -> asyncio.Task[None]:
        """Look at the map in the background, unless somebody just has."""
        fresh = self._owners and time.monotonic() < self._looked_at + LOOK_AGAIN
        if self._looking is None or (self._looking.done() and not fresh):
            self._looking = asyncio.create_task(self._learn())
        return self._looking

    async def _learn(self) -> None:
        """Take over the first map that covers every slot, else the one that covers most; none answers: keep ours."""
        if self._closed:
            return
        tasks = [asyncio.create_task(self._ask(address)) for address in {**dict.fromkeys(self._seeds), **self._clients}]
        best: dict[int, Address] = {}
        try:
            for answer in asyncio.as_completed(tasks, timeout=self._patience):
                best = max(best, await answer, key=len)
                if len(best) == REDIS_CLUSTER_HASH_SLOTS:
                    break
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._looked_at = time.monotonic()
        if best:
            self._owners = best
            self._let_go({*best.values(), *self._seeds})

    async def _ask(self, address: Address) -> dict[int, Address]:
        """Return the slots' owners as one node knows them; nothing where it does not answer."""
        try:
            ranges = await _call(self._client(address), "CLUSTER SLOTS")
        except (RedisError, OSError) as error:
            self._trouble = error.with_traceback(None)
            return {}
        owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_replicas in ranges:
            name = host.decode() if host else ""
            # Empty or "?": the host that was asked.
            owner = (address[0] if name in {"", "?"} else name, int(port))
            owners |= dict.fromkeys(range(first, last + 1), owner)
        return owners

    def _let_go(self, kept: set[Address]) -> None:
        """Close the connections to nodes that own nothing any more, once nobody can be using them."""

        async def close(client: Redis) -> None:
            try:
                await asyncio.sleep(2 * self._patience)
            finally:
                await client.aclose()

        for address in self._clients.keys() - kept:
            task = asyncio.create_task(close(self._clients.pop(address)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


async def _call(client: Redis, *args: Any, **options: Any) -> Any:
    return await client.execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Turns(Pipeline):
    """Sends its commands in order, one after the other, and stops at the first error: slots may differ."""

    def __init__(self, cluster: Cluster, shard_hint: str | None) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction=False, shard_hint=shard_hint)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  (redis-py's)
        """See redis-py."""
        commands, self.command_stack = self.command_stack, []
        answers: list[Any] = []
        for args, options in commands:
            try:
                answers.append(await self._cluster.execute_command(*args, **options))
            except ResponseError as error:
                if raise_on_error:
                    raise
                answers.append(error)
        await self.reset()  # type: ignore[no-untyped-call]
        return answers
