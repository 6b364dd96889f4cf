"""What is live and who may mint: admit, record, list, log out.

Every step that must be one step is one Lua call.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from math import ceil
from random import getrandbits
from typing import Any, NamedTuple

from redis.asyncio import Redis

from service.contract import MAX_SECONDS
from service.errors import LoginRevoked, RateLimited, StoreUnavailable, TenantBlocked, TooManyLiveSessions
from service.principal import Principal
from service.session import Limits, Live, Window
from service.store.connect import RedisGuard, probe
from service.store.pipeline import Call, Pipeline
from service.store.records import (
    KEEP,
    Queued,
    Shard,
    UserKeys,
    login_mark,
    login_name,
    read_live,
    read_queued,
    readable,
    shard_of,
    write_record,
)
from service.store.scripts import lua


class WindowState(NamedTuple):
    """Where the caller stands in one rate window: what is left, and seconds until it is full again."""

    window: Window
    left: int
    reset: float


class Admission(NamedTuple):
    """A reserved slot: record turns it into a live session, or it lapses."""

    keys: UserKeys
    login: str
    """What stands for the login in fence and record."""
    issued_at: int
    """Of its token, in milliseconds."""
    lease: str
    windows: tuple[WindowState, ...]


class Crowded(Exception):  # noqa: N818
    """Older sessions must give way, and the user isn't on the list of those with something to cancel yet."""


class SessionStore:
    """Sessions, fences and limits of every user. Each method raises `StoreUnavailable` when Redis fails."""

    def __init__(self, redis: Redis, guard: RedisGuard, pipeline: Pipeline) -> None:
        self._redis = redis
        self._guard = guard
        self._pipeline = pipeline
        self._admit = redis.register_script(lua("admit"))
        self._gate = redis.register_script(lua("gate"))
        self._record = redis.register_script(lua("record"))
        self._revoke = redis.register_script(lua("revoke"))
        self._retire = redis.register_script(lua("retire"))
        self._forgo = redis.register_script(lua("forgo"))

    async def admit(self, principal: Principal, limits: Limits, *, lease_seconds: int) -> Admission:
        """Reserve a slot for one mint.

        The lease comes first, then the list by which a tenant's revocation and a logout that names the login alone
        find this user: whoever closes the gate after we have passed it finds the user there, and takes the lease away.

        Raises `LoginRevoked`, `TenantBlocked`, `RateLimited` or `TooManyLiveSessions`, the latter two with when to come
        back.
        """
        keys = UserKeys.of(principal.tenant, principal.subject)
        lease = f"~{getrandbits(72):018x}"  # names a slot among the user's own, guards nothing
        refuse_at = limits.live if limits.live and limits.excess == "refuse" else 0
        alive = lease_seconds + MAX_SECONDS + 2 * KEEP
        login, issued_at = login_mark(principal.login), int(principal.issued_at * 1000)
        gate, name = _gate(principal, keys)
        minting: list[Any] = [name, keys.digest, issued_at, alive]  # digests are bytes
        (verdict, wait, *states), passed = await self._pipeline.run(
            Call(
                self._admit,
                [keys.live, keys.fence, *map(keys.rate, range(len(limits.mints)))],
                [login, issued_at, lease, lease_seconds, refuse_at, KEEP, *chain(*limits.mints)],
            ),
            Call(self._gate, gate, minting),
        )
        if verdict == b"revoked":
            raise LoginRevoked("fenced at admit")
        standing = window_states(limits.mints, states)
        if verdict == b"rate":
            raise RateLimited(retry_after=wait / 1000, headers=rate_headers(standing))
        if verdict == b"live":
            raise TooManyLiveSessions(retry_after=wait / 1000, headers=rate_headers(standing))
        admission = Admission(keys, login, issued_at, lease, standing)
        if passed != b"ok":
            await self.forgo(admission, refund=True)
            raise TenantBlocked if passed == b"blocked" else LoginRevoked("the whole tenant, or the login, was ended")
        return admission

    async def record(self, admission: Admission, live: Live, limits: Limits, *, listed: bool = False) -> list[Queued]:
        """Make the new session known; return the older ones that had to give way and are queued.

        Raises `LoginRevoked` where a logout came between, and `StoreUnavailable` where Redis no longer knows the
        lease: either way the session must be cancelled and its secret must not leave. Raises `Crowded` where older
        ones must give way and the user is not *listed* as having something to cancel: list it, and ask again.
        """
        keys = admission.keys
        give_way = limits.live if limits.live and limits.excess == "cancel_oldest" else 0
        arguments: list[str | int] = [
            admission.login,
            admission.issued_at,
            admission.lease,
            live.id,
            write_record(live),
            live.expires_at,
            KEEP,
            give_way,
            int(listed),
        ]
        verdict, *evicted = await self._pipeline.one(self._record, [keys.live, keys.fence, keys.queue], arguments)
        match verdict:
            case b"revoked":
                raise LoginRevoked("fenced at record: a logout came while the session was being created")
            case b"lost":
                raise StoreUnavailable("Redis no longer knows the lease")
            case b"crowded":
                raise Crowded
        return _pairs(evicted) if evicted else []

    async def forgo(self, admission: Admission, *, refund: bool = False) -> None:
        """Give an unused slot back; *refund* also what the mint counted for in the user's own windows."""
        states = admission.windows if refund else ()
        numbers = chain(*(state.window for state in states))
        windows = map(admission.keys.rate, range(len(states)))
        await self._pipeline.one(self._forgo, [admission.keys.live, *windows], [admission.lease, *numbers])

    async def live(self, keys: UserKeys, *, now: float) -> list[Live]:
        """Return the user's live sessions, newest first; *now* is in Unix seconds."""
        async with self._guard():
            lines: Any = await self._redis.get(keys.live)
        known = [session for session in read_live((lines or b"").decode()) if session.expires_at > now]
        return sorted(known, key=lambda session: (session.created_at, session.id), reverse=True)

    async def revoke(
        self,
        keys: UserKeys,
        *,
        login: str | None,
        remember: float,
        reason: str,
        issued_at: float = 0.0,
        nameless: bool = False,
        leases: bool = False,
    ) -> list[Queued]:
        """Fence a login (None: all of the user's), queue its live sessions and return what is to be cancelled.

        *issued_at* is the asking token's `iat` (Unix seconds, 0: none), *remember* how long the fence stands (s).
        *nameless*: what carries no login ends with this one. *leases*: no mint under way can be recorded any more,
        whatever its token.
        """
        answer: Sequence[bytes] = await self._pipeline.one(
            self._revoke,
            [keys.live, keys.fence, keys.queue],
            [
                login_mark(login),
                int(issued_at * 1000),
                int(remember) + 1,
                reason,
                KEEP,
                int(nameless),
                int(leases),
            ],
        )
        return _pairs(answer)

    async def retire(self, keys: UserKeys, session_id: str, *, reason: str) -> Queued | None:
        """Queue one live session to be cancelled; None where the user has no such session."""
        entry: bytes | None = await self._pipeline.one(
            self._retire, [keys.live, keys.queue], [session_id, reason, KEEP]
        )
        return None if entry is None else read_queued(session_id, entry.decode())

    async def check_login(self, principal: Principal) -> None:
        """Raise `LoginRevoked` where the principal's login was logged out."""
        keys = UserKeys.of(principal.tenant, principal.subject)
        login, issued_at = login_mark(principal.login), int(principal.issued_at * 1000)
        (_gate_key, _users, _older, *marks), _name = _gate(principal, keys)
        async with self._guard():
            fence: Any = self._redis.hmget(keys.fence, ["*", f"s{login}"])
            everyone, own = await fence
            ended = marks and await self._redis.exists(*marks)
        if ended or (own and (login or issued_at <= int(own))) or (everyone and issued_at <= int(everyone)):
            raise LoginRevoked("fenced")

    async def ping(self) -> None:
        """Ask whether Redis answers and takes what is written."""
        async with self._guard():
            await probe(self._redis)


def _pairs(answer: Sequence[bytes]) -> list[Queued]:
    return readable((answer[i], answer[i + 1]) for i in range(0, len(answer), 2))


def _gate(principal: Principal, keys: UserKeys) -> tuple[list[str], bytes]:
    """Return the keys of the gate that the principal passes, and the login's name there: of its login's shard."""
    if not principal.login:
        shard = Shard.of(principal.tenant, keys.shard)
        return [shard.gate, *shard.users], b""
    name = login_name(principal.issuer, principal.login)
    shard = Shard.of(principal.tenant, shard_of(name))
    return [shard.gate, *shard.users, shard.ended(name)], name


def window_states(windows: Sequence[Window], answer: Sequence[int]) -> tuple[WindowState, ...]:
    """Return where each window stands, of a script's answer: what is left and when it is full (ms), in turns."""
    pairs = zip(windows, answer[::2], answer[1::2], strict=True)
    return tuple([WindowState(window, left, reset / 1000) for window, left, reset in pairs])


def rate_headers(states: Sequence[WindowState], of: str = "mint") -> dict[str, str]:
    """Return `RateLimit` and `RateLimit-Policy` (IETF httpapi draft): an item a window, times in whole seconds."""
    if not states:
        return {}
    names, policy = _policy(tuple([state.window for state in states]), of)
    told = [f'"{name}";r={left};t={ceil(reset)}' for name, (_, left, reset) in zip(names, states, strict=True)]
    return {"RateLimit-Policy": policy, "RateLimit": ", ".join(told)}


@lru_cache(maxsize=4096)
def _policy(windows: tuple[Window, ...], of: str) -> tuple[tuple[str, ...], str]:
    """Return what each window is called, and the policy of all: the same for every mint of a tenant."""
    names = tuple(f"{of}-{window.seconds}" if len(windows) > 1 else of for window in windows)
    told = zip(names, windows, strict=True)
    return names, ", ".join(f'"{name}";q={window.most};w={window.seconds}' for name, window in told)
