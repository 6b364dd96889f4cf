"""The example server behind sessions that the service mints for logins with signed tokens."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2

from authority.parts import HASH
from service.app import create_app
from service.settings import Settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNERS = {name: Signer(f"https://{name}.example/", name) for name in ("acme", "globex")}
GRANTS = {
    "uploads": {"file_upload": {"enabled": True, "max_files": 2, "max_file_size": 1}},
    "forgetful": {"history": {"enabled": False}},
    "two": {"history": {"enabled": True, "recent_threads": 2}},
}
"""What the claim `plan` brings."""


def mint_app(folder: Path, redis: Any) -> Any:
    """The service with two tenants; most of their users may make many requests, those with plan `ten` ten."""
    rules = [
        {
            "name": name,
            "when": f'has(claims.plan) && claims.plan == "{name}"',
            "session": {"chatkit_configuration": grants},
        }
        for name, grants in GRANTS.items()
    ]
    few = {"rate_limits": {"max_requests_per_1_minute": 10}}
    rules.append({"name": "ten", "when": 'has(claims.plan) && claims.plan == "ten"', "session": few})
    files = []
    for name, signer in SIGNERS.items():
        identity = {"issuer": signer.issuer, "audience": name, "algorithms": ["ES256"], "jwks": signer.jwks}
        keys = [{"name": "chat", "sha256": HASH, "may": ["verify"]}]
        session = {"workflow": {"id": f"wf_{name}"}, "rate_limits": {"max_requests_per_1_minute": 10_000}}
        files.append(tenant_file(name, identity, service_keys=keys, session=session, rules=rules))
    return create_app(Settings(config_dir=write_config(folder, *files)), {}, redis=redis)


@dataclass
class Person:
    """A login of a user, whose browser talks to the service and to the ChatKit server."""

    mint: httpx2.AsyncClient
    chat: httpx2.AsyncClient
    signer: Signer
    subject: str
    plan: str = ""
    login: str = field(default_factory=lambda: secrets.token_hex(8))
    session: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def token(self) -> str:
        return self.signer.token(self.subject, sid=self.login, plan=self.plan or None)

    async def arrive(self) -> "Person":
        """Have a session minted, as the page does."""
        answer = await self.mint.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        self.session = answer.json()
        return self

    async def leave(self) -> float:
        """Log out; the time at which it was confirmed."""
        answer = await self.mint.post("/v1/logout", headers={"authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["pending"] == 0
        return time.monotonic()

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.session['client_secret']}", "content-type": "application/json"}

    async def send(self, kind: str, /, **params: Any) -> httpx2.Response:
        """One request of ChatKit's protocol."""
        return await self.chat.post("/chatkit", headers=self.headers, content=body(kind, **params))

    async def ask(self, kind: str, /, **params: Any) -> Any:
        """One that is answered with JSON."""
        answer = await self.send(kind, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def say(self, text: str, thread: str | None = None, attachments: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Send a message, in a new thread where none is given; the events of the whole answer."""
        message = said(text, attachments)
        kind = "threads.add_user_message" if thread else "threads.create"
        answer = await self.send(kind, input=message, **({"thread_id": thread} if thread else {}))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return events(answer.text)

    async def thread(self, text: str = "hello") -> str:
        """Start a thread; its id."""
        first = (await self.say(text))[0]
        assert first["type"] == "thread.created", first
        identity: str = first["thread"]["id"]
        return identity

    async def threads(self, **params: Any) -> list[str]:
        """The ids of the threads that are listed."""
        return [each["id"] for each in (await self.ask("threads.list", **params))["data"]]


def body(kind: str, /, **params: Any) -> bytes:
    return json.dumps({"type": kind, "params": params}).encode()


def said(text: str, attachments: Sequence[str] = ()) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": list(attachments), "inference_options": {}}


LONG = " ".join(["word"] * 200)


async def read_on_and_leave(answer: httpx2.Response, person: Person) -> tuple[str, float]:
    """Read a streamed answer and log its reader out in the middle; return it, and how long it went on after that."""
    got, parts = b"", answer.aiter_bytes()
    while got.count(b"text_delta") < 5:
        got += await anext(parts)
    left = await person.leave()
    async for part in parts:
        got += part
    return got.decode(), time.monotonic() - left


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(each.removeprefix("data: ")) for each in text.split("\n\n") if each.strip()]
