"""Callers on kept connections who mint and log out at a steady pace, and may never meet a failure."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2

from api.parts import Issuer

PAUSE = 0.01
"""Seconds between a caller's requests."""


@dataclass
class Steady:
    """*minted* and *cancelled* are session ids; *failures*, whatever was neither."""

    url: str
    issuer: Issuer
    tenant: str = "acme"
    minted: list[str] = field(default_factory=list)
    logged_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def load(self, callers: int) -> AsyncIterator["Steady"]:
        tasks = [asyncio.create_task(self._caller()) for _ in range(callers)]
        try:
            yield self
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def more(self, count: int, *, within: float = 30.0) -> None:
        """Wait until so many more were minted."""
        goal = len(self.minted) + count
        async with asyncio.timeout(within):
            while len(self.minted) < goal and not self.failures:  # noqa: ASYNC110  (a count, and no event)
                await asyncio.sleep(0.01)

    async def _caller(self) -> None:
        async with httpx2.AsyncClient(base_url=self.url, timeout=30.0, trust_env=False) as http:
            while not self._stop.is_set():
                token = self.issuer.token(self.tenant, f"user-{secrets.token_hex(6)}", sid=secrets.token_hex(8))
                headers = {"authorization": f"Bearer {token}"}
                session = await self._ask(http, "/v1/chatkit/sessions", headers)
                if session:
                    self.minted.append(session["id"])
                if session and len(self.minted) % 2 and await self._ask(http, "/v1/logout", headers):
                    self.logged_out.append(session["id"])
                await asyncio.sleep(PAUSE)

    async def _ask(self, http: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> dict[str, str]:
        try:
            answer = await http.post(path, headers=headers)
        except httpx2.HTTPError as error:
            self.failures.append(f"{path}: {error!r}")
            return {}
        if answer.status_code != httpx2.codes.OK:
            self.failures.append(f"{path}: {answer.status_code} {answer.text}")
            return {}
        told: dict[str, str] = answer.json()
        return told
