"""An issuer's process with the keys it signs with, and key caches whose time a test moves."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

import support.issuer
from service.errors import Refusal
from service.identity.authenticate import Authenticator
from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.principal import Discovery, KeySource, Principal, Trust
from service.transport import make_transport
from support.issuer import CONTROL, DISCOVERY, ELSEWHERE, JWKS
from support.tokens import Signer

Trusts = Mapping[str, tuple[Trust, ...]]


class Issuer:
    """The process under a port that stays the same however often it is stopped and started."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.rotations = 0
        self.reset()

    def start(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, support.issuer.__file__, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdout
        with self._popen.stdout as told:
            self.port = int(told.readline())
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)

    def stop(self) -> None:
        self._http.close()
        self._popen.kill()
        self._popen.communicate(timeout=10)

    def reset(self) -> None:
        """Whole again: one key, nothing asked yet."""
        if self._popen.poll() is not None:
            self.start()
        self.signer = Signer(self.url)
        self.configuration = {"issuer": self.url, "jwks_uri": self.url + JWKS}
        self.set(faults={}, latency=0.0, max_age=None, asked={})
        self.publish(self.signer)

    def set(self, **state: Any) -> None:
        self._http.post(CONTROL, json=state).raise_for_status()

    def publish(self, *signers: Signer) -> None:
        keys = {"keys": [signer.jwk for signer in signers]}
        self.set(documents={DISCOVERY: self.configuration, JWKS: keys, ELSEWHERE: keys})

    def fault(self, fault: str, path: str = JWKS) -> None:
        self.set(faults={path: fault})

    def new_signer(self) -> Signer:
        """The next key, not published yet."""
        self.rotations += 1
        return Signer(self.url, kid=f"r{self.rotations}")

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self._http.get(CONTROL).json()
        return told

    def asked(self, path: str = JWKS) -> int:
        return int(self.told()["asked"].get(path, 0))

    @property
    def source(self) -> Discovery:
        return Discovery(self.url, self.url + DISCOVERY)


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        self.now += seconds


def trust(issuer: str, keys: KeySource, tenant: str = "acme", **changes: Any) -> Trust:
    """What a tenant believes, by the defaults of a tenant file."""
    values: dict[str, Any] = {
        "audiences": frozenset({"app"}),
        "algorithms": frozenset({"ES256"}),
        "matches": lambda _: True,
        "subject": lambda claims: claims["sub"],
        "login": lambda claims: claims.get("sid"),
        **changes,
    }
    return Trust(tenant=tenant, issuer=issuer, keys=keys, **values)


def by_issuer(*trusts: Trust) -> Trusts:
    found: dict[str, tuple[Trust, ...]] = {}
    for each in trusts:
        found[each.issuer] = (*found.get(each.issuer, ()), each)
    return found


class Checking:
    """The key cache over real connections, the authenticator on top, and the time as the cache sees it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.transport = make_transport()
        self.keys = KeyCache(self.transport, self.metrics, clock=self.clock)
        self.authenticator = Authenticator(self.keys, clock=time.time)

    async def principal(self, token: str, trusts: Trusts, tenant: str | None = None) -> Principal:
        return await self.authenticator.principal(token, trusts, tenant=tenant)

    async def outcome(self, token: str, trusts: Trusts, tenant: str | None = None) -> str:
        """`tenant/subject`, or the refusal's code."""
        try:
            who = await self.principal(token, trusts, tenant)
        except Refusal as refusal:
            return refusal.code
        return f"{who.tenant}/{who.subject}"

    async def refreshed(self) -> None:
        """One look of the background task, and what it starts."""
        await self.keys.refresh_due()
        await settled(lambda: not any(held.fetching for held in self.keys._held.values()))

    def refreshes(self, outcome: str) -> float:
        found = self.metrics.registry.get_sample_value("chatkit_mint_jwks_refreshes_total", {"outcome": outcome})
        return found or 0.0

    async def aclose(self) -> None:
        await self.keys.aclose()
        await self.transport.aclose()


async def settled(holds: Callable[[], object], within: float = 8.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110  (what is waited for happens in another process)
            await asyncio.sleep(0.005)
