"""The operations listener: metrics and health. Never routed publicly."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import Refusal
from service.http.answers import to_json
from service.identity.keys import KeyCache, describe
from service.observe.metrics import Metrics
from service.policy.tenant import Policies
from service.store.sessions import SessionStore

PATIENCE: Final = 2.0
"""Seconds that a readiness answer may take: probes give up soon after."""


class LivePolicies(Protocol):
    """The policies in force, and why the files as they stand are not (None: they are)."""

    current: Policies
    failure: str | None


@dataclass(frozen=True, slots=True)
class OperationsApi:
    """The endpoints. *draining* says whether this process is on its way out."""

    policies: LivePolicies
    keys: KeyCache
    store: SessionStore
    metrics: Metrics
    draining: Callable[[], bool]

    def routes(self) -> list[Route]:
        """Return the routing table."""
        return [
            Route("/metrics", self.scrape),
            Route("/livez", self.alive),
            Route("/readyz", self.ready),
        ]

    async def scrape(self, request: Request) -> Response:
        """Answer Prometheus, in the format that it asks for."""
        body, content_type = self.metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def alive(self, _request: Request) -> Response:
        """Say that the process turns. Asks nothing else: a blip of Redis must not restart the fleet."""
        return Response("ok\n", media_type="text/plain")

    async def ready(self, _request: Request) -> Response:
        """Say whether this process can mint now, and name what stands in the way."""
        redis = await self._redis()
        missing = [describe(source) for source in self.keys.missing()]
        policies, failure = self.policies.current, self.policies.failure
        everyone = policies.key_sources
        checks: dict[str, dict[str, Any]] = {
            "redis": redis,
            "policies": {
                "ok": bool(policies.tenants),
                "tenants": len(policies.tenants),
                "version": policies.version,
                # The last good ones stay in force: degraded, still ready.
                "not_reloaded": failure.splitlines()[:5] if failure else None,
            },
            # One issuer that is down takes its own tenants down, not this process: degraded, still ready.
            "keys": {"ok": not missing or len(missing) < len(everyone), "missing": missing},
            "draining": {"ok": not self.draining()},
        }
        ready = all(check["ok"] for check in checks.values())
        status = "ready" if ready and not missing and not failure else "degraded" if ready else "unready"
        body = to_json({"status": status, "checks": checks})
        return Response(body, 200 if ready else 503, {"cache-control": "no-store"}, "application/json")

    async def _redis(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.store.ping()
        except (Refusal, TimeoutError) as error:
            return {"ok": False, "reason": getattr(error, "reason", None) or "no answer in time"}
        return {"ok": True}
