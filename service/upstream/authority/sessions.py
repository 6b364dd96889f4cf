"""Issue sessions and cancel them: upstream's two calls, kept in Redis.

`cm:authority:session:<id>` holds a session as JSON, with its project and its secret's hash; it outlives the
session so that "expired" can be told from "unknown". `cm:authority:secret:<sha256 hex>` leads from a secret
to the session's id and outlives a cancel: whoever follows it must look at the session's status.
The secret itself is in the answer to create and nowhere else.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.contract import MAX_SECONDS, CreateSession
from service.session import Status
from service.upstream.authority.validate import valid_create
from service.upstream.authority.wire import SERVER_ERROR, WireError

SESSION_KEY: Final = "cm:authority:session:"
SECRET_KEY: Final = "cm:authority:secret:"  # noqa: S105  (a key's prefix, not a secret)

KEPT_AFTER: Final = 3600
"""Seconds that a session's record outlives it; until then it is `expired`, afterwards unknown."""

SECRET_KEPT_AFTER: Final = 60
"""Seconds that a secret's index entry outlives its session: more than clocks differ."""

PATIENCE = 2.0
"""Seconds that one call may wait for Redis, whatever timeouts and retries the client was built with."""

SWAP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""
"""Replace a record only if it is still the one that was read."""


class Authority:
    """ChatKit sessions by upstream's contract. All that fails is a `WireError`, with 503 if Redis did."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._swap = redis.register_script(SWAP)

    async def create(self, project: str, body: object) -> dict[str, Any]:
        """Issue a session to *project* for a create body; return it with its `client_secret`."""
        wish = valid_create(body)
        life = wish["expires_after"]["seconds"] if "expires_after" in wish else MAX_SECONDS
        session = _resolved(wish, f"cksess_{secrets.token_hex(24)}", int(self._clock()) + life)
        secret = f"ek_{secrets.token_urlsafe(32)}"
        hashed = hashlib.sha256(secret.encode()).hexdigest()
        record = _encoded({"project": project, "secret_sha256": hashed, "session": session})
        # Two keys, so two slots of a cluster: no transaction. An index entry too many is harmless.
        async with _answering(), self._redis.pipeline(transaction=False) as pipe:
            pipe.set(SECRET_KEY + hashed, session["id"], ex=life + SECRET_KEPT_AFTER)
            pipe.set(SESSION_KEY + session["id"], record, ex=life + KEPT_AFTER)
            await pipe.execute()
        return session | {"client_secret": secret}

    async def cancel(self, project: str, session_id: str) -> dict[str, Any]:
        """Cancel the project's session and return it without its secret; to repeat it changes nothing.

        Raises a 404 `WireError` for an unknown id or another project's, a 400 `session_expired` for one that
        has ended by itself (what upstream answers then is not verified).
        """
        key = SESSION_KEY + session_id
        async with _answering():
            while True:
                found = await self._redis.get(key)
                record: dict[str, Any] = orjson.loads(found) if found else {}
                if not found or record["project"] != project:
                    raise WireError(404, f"Session with id '{session_id}' not found.")
                session = self._current(record)
                if session["status"] == Status.CANCELLED:
                    return session
                if session["status"] == Status.EXPIRED:
                    raise WireError(400, f"Session with id '{session_id}' has expired.", code="session_expired")
                session["status"] = str(Status.CANCELLED)
                # Should it lose a race, the next turn finds what won: another cancel, or the record's end.
                if await self._swap(keys=[key], args=[found, _encoded(record | {"session": session})]):
                    return session

    async def find(self, session_id: str) -> dict[str, Any] | None:
        """Return the session with its status as of now and no secret, whosever it is; None if unknown."""
        async with _answering():
            found = await self._redis.get(SESSION_KEY + session_id)
        return self._current(orjson.loads(found)) if found else None

    async def sessions(self) -> list[dict[str, Any]]:
        """Return all that is on record as `find` does, by their end. It scans: for tests and `dev`."""
        async with _answering():
            keys = {key async for key in self._redis.scan_iter(match=f"{SESSION_KEY}*", count=1000)}
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.get(key)
                records = await pipe.execute()
        found = [self._current(orjson.loads(record)) for record in records if record]
        return sorted(found, key=lambda session: (session["expires_at"], session["id"]))

    def _current(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record's session with its true status: nothing rewrites a record when time runs out."""
        session: dict[str, Any] = dict(record["session"])
        if session["status"] == Status.ACTIVE and self._clock() >= session["expires_at"]:
            session["status"] = str(Status.EXPIRED)
        return session


def _resolved(wish: CreateSession, session_id: str, expires_at: int) -> dict[str, Any]:
    """Return the new session without its secret: every default of the contract's create table filled in."""
    workflow = wish["workflow"]
    configuration = wish.get("chatkit_configuration", {})
    limits = {"max_requests_per_1_minute": 10} | wish.get("rate_limits", {})
    uploads = {"enabled": False, "max_file_size": 512, "max_files": 10}
    return {
        "id": session_id,
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
async def _answering() -> AsyncIterator[None]:
    """Turn a Redis that fails or is silent into a 503."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except (RedisError, TimeoutError) as error:
        # No hint to retry: a create whose acknowledgement was lost may have taken place.
        message = "The server can't reach its session store right now."
        raise WireError(503, message, type=SERVER_ERROR, code="store_unavailable") from error
