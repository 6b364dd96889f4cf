"""What the black-box tests talk to: the service, its callers, and the authority behind it."""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from api.parts import Issuer, RedisServer, eventually
from service.upstream.authority.sessions import Authority
from support.documented import on_answer
from support.processes import Process, clean_environ

PATIENT = {"CHATKIT_MINT_REDIS_TIMEOUT": "5", "CHATKIT_MINT_UPSTREAM_CONNECT_TIMEOUT": "7"}
"""For services whose tests are not about these deadlines: a busy machine may take longer than usual."""
API_KEYS = {"ACME_KEY": "sk-acme-5d41402abc4b2a76b971", "GLOBEX_KEY": "sk-globex-7d793037a0760186574b"}


class Service:
    """`chatkit-mint serve`, and what it wrote to its log."""

    def __init__(self, output: Path, config: Path, redis_url: str, **settings: str) -> None:
        environ = {
            "CHATKIT_MINT_CONFIG_DIR": str(config),
            "CHATKIT_MINT_REDIS_URL": redis_url,
            "CHATKIT_MINT_PORT": "0",
            "CHATKIT_MINT_OPS_PORT": "0",
            **API_KEYS,
            **settings,
        }
        given = {name: value for name, value in environ.items() if value}  # an empty one takes a default of ours away
        self.process = Process("serve", output=output, environ=clean_environ(**given))

    def wait(self) -> "Service":
        """Wait until it listens; the system chose its ports, so no other process can have taken them."""
        told = json.loads(self.process.wait_for(r'.*"event":"listening".*')[0])
        self.url, self.operations = told["public"], told["operations"]
        self.process.wait_ready(f"{self.operations}/livez")
        self.http = httpx2.Client(
            base_url=self.url, timeout=30.0, trust_env=False, event_hooks={"response": [on_answer]}
        )
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log; each must be JSON. The audit stream's are apart."""
        return [line for line in self._told() if line.get("stream") != "audit"]

    def audit(self, answer: httpx2.Response) -> list[dict[str, Any]]:
        """What the audit stream has of one request."""
        self.line(answer)  # written last
        request_id = answer.headers["x-request-id"]
        return [line for line in self._told() if line.get("stream") == "audit" and line.get("request_id") == request_id]

    def _told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.process.text().rpartition("\n")[0].splitlines()]

    def line(self, answer: httpx2.Response) -> dict[str, Any]:
        """The log's line of one request, which is written just after its answer."""
        request_id = answer.headers["x-request-id"]

        def found() -> dict[str, Any] | None:
            # A line is complete with its line feed; the request's id leads to it without parsing the others.
            whole = self.process.text().rpartition("\n")[0].splitlines()
            mine = (json.loads(line) for line in whole if request_id in line)
            return next((line for line in mine if line.get("stream") != "audit"), None)

        return eventually(lambda: found() or {})

    def ops(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.operations + path, headers=headers, trust_env=False)

    def counted(self, name: str, **labels: str) -> float:
        """A counter's value now; 0 where nothing was counted yet."""
        for family in text_string_to_metric_families(self.ops("/metrics").text):
            for sample in family.samples:
                if sample.name == f"chatkit_mint_{name}_total" and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def close(self) -> None:
        if hasattr(self, "http"):
            self.http.close()
        self.process.stop()


@dataclass(frozen=True)
class Caller:
    """One login of one user of one tenant, and what it can ask for."""

    service: Service
    issuer: Issuer
    tenant: str
    subject: str
    login: str = field(default_factory=lambda: secrets.token_hex(8))
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.token  # of now: first asked for after a logout, it would be of a later login

    @cached_property
    def token(self) -> str:
        """One token for the login's whole life: a later one would count as issued after a logout."""
        return self.issuer.token(self.tenant, self.subject, **{"sid": self.login, **self.claims})

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def again(self, **claims: Any) -> "Caller":
        """The same user, logged in once more."""
        return Caller(self.service, self.issuer, self.tenant, self.subject, claims=claims)

    def get(self, path: str) -> httpx2.Response:
        return self.service.http.get(path, headers=self.headers)

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.service.http.post(path, headers=self.headers, json=body or None)

    def mint(self, **body: Any) -> httpx2.Response:
        return self.post("/v1/chatkit/sessions", **body)

    def minted(self, **body: Any) -> dict[str, Any]:
        answer = self.mint(**body)
        assert answer.status_code == 200, answer.text
        session: dict[str, Any] = answer.json()
        return session

    def live(self) -> list[str]:
        """The ids of the sessions that the service lists."""
        answer = self.get("/v1/chatkit/sessions")
        if answer.status_code == 401 and answer.json()["code"] == "login_revoked":
            return []
        assert answer.status_code == 200, answer.text
        return [session["id"] for session in answer.json()["data"]]

    def cancel(self, session_id: str) -> httpx2.Response:
        return self.post(f"/v1/chatkit/sessions/{session_id}/cancel")

    def log_out(self, **body: Any) -> httpx2.Response:
        return self.post("/v1/logout", **body)


Someone = Callable[..., Caller]
"""Log somebody in whom no other test knows: (tenant, subject, **claims)."""


@dataclass
class Fragile:
    """A service with a Redis of its own, which its test may take away."""

    service: Service
    redis: RedisServer
    issuer: Issuer

    def someone(self, tenant: str = "acme") -> Caller:
        return Caller(self.service, self.issuer, tenant, f"user-{secrets.token_hex(6)}")


class Upstream:
    """The sessions as the authority itself has them, read from its Redis."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url

    def find(self, session_id: str) -> dict[str, Any] | None:
        async def asked() -> dict[str, Any] | None:
            async with Redis.from_url(self._url) as redis:
                return await Authority(redis).find(session_id)

        return asyncio.run(asked())

    def status(self, session_id: str) -> str:
        found = self.find(session_id)
        assert found, f"the authority knows no {session_id}"
        status: str = found["status"]
        return status

    def of(self, user: str) -> list[dict[str, Any]]:
        """All sessions of a mapped user, by their end."""

        async def asked() -> list[dict[str, Any]]:
            async with Redis.from_url(self._url) as redis:
                return await Authority(redis).sessions()

        return [session for session in asyncio.run(asked()) if session["user"] == user]
