"""Callers that go on minting whatever happens to Redis, and the account of what they were given."""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from api.parts import Issuer, eventually
from api.stack import Caller, Service
from service.store.records import Shard, UserKeys, login_name, shard_of
from service.upstream.authority.sessions import Authority

THREADS = 4
PAUSE = 0.05
"""Seconds between two mints of one thread."""
DEADLINE = 3.0
"""Seconds within which every call is answered: two steps of Redis at half a second, upstream, and a busy machine."""


@dataclass(frozen=True)
class Stage:
    """What stays whole while the service's Redis does not."""

    issuer: Issuer
    authority_url: str
    config: Path

    def someone(self, service: Service) -> Caller:
        return Caller(service, self.issuer, "acme", f"user-{secrets.token_hex(6)}")

    def sessions(self) -> dict[str, list[dict[str, Any]]]:
        """The authority's own account: every session, by its user."""

        async def asked() -> list[dict[str, Any]]:
            async with Redis.from_url(self.authority_url) as redis:
                return await Authority(redis).sessions()

        found: dict[str, list[dict[str, Any]]] = {}
        for session in asyncio.run(asked()):
            found.setdefault(session["user"], []).append(session)
        return found


@dataclass(frozen=True)
class Mint:
    """One mint and its answer. The times are of the monotonic clock."""

    caller: Caller
    answer: httpx2.Response
    asked_at: float
    answered_at: float

    @property
    def handed_out(self) -> bool:
        return self.answer.status_code == 200

    @property
    def keys(self) -> tuple[str, str]:
        """What it needs of Redis: the user's own, and the tenant's gate. Each may be on another node."""
        shard = shard_of(login_name(self.caller.issuer.url, self.caller.login))
        return UserKeys.of("acme", self.caller.subject).live, Shard.of("acme", shard).gate


@dataclass
class Storm:
    """Mints, each by a user of its own, from several threads until told to stop."""

    stage: Stage
    service: Service
    mints: list[Mint] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def raging(self) -> Iterator["Storm"]:
        threads = [threading.Thread(target=self._rage, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads), "a mint hangs"

    def _rage(self) -> None:
        while not self._stop.wait(PAUSE):
            self.one()

    def one(self) -> Mint:
        caller, asked_at = self.stage.someone(self.service), time.monotonic()
        mint = Mint(caller, caller.mint(), asked_at, time.monotonic())
        self.mints.append(mint)
        return mint

    def refused(self) -> list[Mint]:
        return [mint for mint in self.mints if not mint.handed_out]

    def wait_for_mints(self, number: int, *, within: float = 20.0) -> None:
        """Wait until so many more were handed out, all asked for from now on."""
        since = time.monotonic()

        def enough() -> bool:
            return sum(mint.handed_out and mint.asked_at > since for mint in list(self.mints)) >= number

        eventually(enough, within=within)

    def check_answers(self) -> None:
        """Each is a session or `store_unavailable`, and came in time."""
        for mint in self.mints:
            took = mint.answered_at - mint.asked_at
            assert took < DEADLINE, f"{mint.answer.status_code} after {took:.1f} s"
            if not mint.handed_out:
                told = mint.answer
                assert (told.status_code, told.json()["code"]) == (503, "store_unavailable"), told.text
                assert int(told.headers["retry-after"]) >= 1
                assert "ek_" not in told.text

    def check_revocable(self, *, lost: Sequence[Mint] = ()) -> None:
        """Log every user out: the authority then has nothing active but what was *lost*, each handed out before.

        Where a mint was refused, its session must be cancelled without any logout.
        """
        names = {f"acme:{mint.caller.subject}" for mint in self.refused()}
        eventually(lambda: not self._active(names), within=15)
        excused = {mint.answer.json()["id"] for mint in lost}
        for mint in self.mints:
            if mint.handed_out and mint not in lost:
                assert mint.caller.live() == [mint.answer.json()["id"]]
                assert mint.caller.log_out(everywhere=True).json() == {"cancelled": 1, "pending": 0}
                assert mint.caller.mint().json()["code"] == "login_revoked"
        assert self._active({f"acme:{mint.caller.subject}" for mint in self.mints}) <= excused

    def _active(self, users: set[str]) -> set[str]:
        known = self.stage.sessions()
        return {each["id"] for user in users for each in known.get(user, []) if each["status"] == "active"}
