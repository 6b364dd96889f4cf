"""Issue sessions and cancel them: upstream's two calls, kept in Redis.

How a session stands there is told in `chatkit_sessions.record`, by which others verify it. The record outlives the
session so that "expired" can be told from "unknown". The secret is in the answer to create and nowhere else.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatkit_sessions.record import PREFIX, lua, session_id, session_key
from chatkit_sessions.session import MEGABYTE
from service.contract import MAX_SECONDS, CreateSession
from service.session import Status
from service.upstream.authority.validate import valid_create
from service.upstream.authority.wire import SERVER_ERROR, WireError

KEPT_AFTER: Final = 3600
"""Seconds that a session's record outlives it; until then it is `expired`, afterwards unknown."""

SECRET: Final = "ek_mint_"  # noqa: S105  (what leads one, and tells pages and scanners of leaked secrets whose it is)

PATIENCE = 2.0
"""Seconds that one call may wait for Redis, whatever timeouts and retries the client was built with."""


class Authority:
    """ChatKit sessions by upstream's contract. All that fails is a `WireError`, with 503 if Redis did."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.time, patience: float = PATIENCE) -> None:
        self._redis = redis
        self._patience = patience
        self._clock = clock
        self._create = redis.register_script(lua("create"))
        self._cancel = redis.register_script(lua("cancel"))

    async def create(self, tenant: str, body: object) -> dict[str, Any]:
        """Issue a session to *tenant* for a create body; return it with its `client_secret`."""
        wish = valid_create(body)
        life = wish["expires_after"]["seconds"] if "expires_after" in wish else MAX_SECONDS
        secret = f"{SECRET}{secrets.token_urlsafe(32)}"
        session = _resolved(wish, session_id(secret), int(self._clock()) + life)
        fields = [each for pair in _record(tenant, session).items() for each in pair]
        async with _answering(self._patience):
            await self._create(keys=[session_key(session["id"])], args=[life + KEPT_AFTER, *fields])
        return session | {"client_secret": secret}

    async def cancel(self, tenant: str, identity: str) -> dict[str, Any]:
        """Cancel the tenant's session and return it without its secret; to repeat it changes nothing.

        Raises a 404 `WireError` for an unknown id or another tenant's, a 400 `session_expired` for one that
        has ended by itself (what upstream answers then is not verified).
        """
        async with _answering(self._patience):
            told, *record = await self._cancel(keys=[session_key(identity)], args=[tenant, self._clock()])
        if told == b"unknown":
            raise WireError(404, f"Session with id '{identity}' not found.")
        if told == b"expired":
            raise WireError(400, f"Session with id '{identity}' has expired.", code="session_expired")
        session: dict[str, Any] = orjson.loads(record[0])
        return session | {"status": str(Status.CANCELLED)}

    async def find(self, identity: str) -> dict[str, Any] | None:
        """Return the session with its status as of now and no secret, whosever it is; None if unknown."""
        async with _answering(self._patience):
            found = await self._redis.hmget(session_key(identity), "status", "session")
        return self._current(*found) if found[0] else None

    async def sessions(self) -> list[dict[str, Any]]:
        """Return all that is on record as `find` does, by their end. It scans: for tests and `dev`."""
        async with _answering(self._patience):
            keys = {key async for key in self._redis.scan_iter(match=f"{PREFIX}session:*", count=1000)}
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hmget(key, "status", "session")
                records = await pipe.execute()
        found = [self._current(*record) for record in records if record[0]]
        return sorted(found, key=lambda session: (session["expires_at"], session["id"]))

    def _current(self, status: Any, record: Any) -> dict[str, Any]:
        """Return the session with its true status: nothing rewrites a record when time runs out."""
        session: dict[str, Any] = orjson.loads(record) | {"status": status.decode()}
        if session["status"] == Status.ACTIVE and self._clock() >= session["expires_at"]:
            session["status"] = str(Status.EXPIRED)
        return session


def _record(tenant: str, session: Mapping[str, Any]) -> dict[str, str | int | bytes]:
    """Return what Redis keeps of a new session: see `chatkit_sessions.record`."""
    uploads = session["chatkit_configuration"]["file_upload"]
    return {
        "tenant": tenant,
        "status": session["status"],
        "expires_at": session["expires_at"],
        "limit": session["max_requests_per_1_minute"],
        "uploads": uploads["max_files"] if uploads["enabled"] else 0,
        "size": uploads["max_file_size"] * MEGABYTE,
        "session": _encoded(session),
    }


def _resolved(wish: CreateSession, identity: str, expires_at: int) -> dict[str, Any]:
    """Return the new session without its secret: every default of the contract's create table filled in."""
    workflow = wish["workflow"]
    configuration = wish.get("chatkit_configuration", {})
    limits = {"max_requests_per_1_minute": 10} | wish.get("rate_limits", {})
    uploads = {"enabled": False, "max_file_size": 512, "max_files": 10}
    return {
        "id": identity,
        "object": "chatkit.session",
        "status": str(Status.ACTIVE),
        "expires_at": expires_at,
        "user": wish["user"],
        "workflow": {
            "id": workflow["id"],
            "version": workflow.get("version"),
            "state_variables": workflow.get("state_variables"),
            "tracing": {"enabled": True} | workflow.get("tracing", {}),
        },
        "rate_limits": limits,
        "max_requests_per_1_minute": limits["max_requests_per_1_minute"],
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": True} | configuration.get("automatic_thread_titling", {}),
            "file_upload": uploads | configuration.get("file_upload", {}),
            "history": {"enabled": True, "recent_threads": None} | configuration.get("history", {}),
        },
    }


def _encoded(record: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(record)
    except TypeError:
        # No JSON text read by orjson has one; a caller in this process may.
        raise WireError(400, "An integer of the request needs more than 64 bits.", code="invalid_value") from None


@asynccontextmanager
async def _answering(patience: float) -> AsyncIterator[None]:
    """Turn a Redis that fails or is silent into a 503."""
    try:
        async with asyncio.timeout(patience):
            yield
    except (RedisError, TimeoutError) as error:
        # No hint to retry: a create whose acknowledgement was lost may have taken place.
        message = "The server can't reach its session store right now."
        raise WireError(503, message, type=SERVER_ERROR, code="store_unavailable") from error
