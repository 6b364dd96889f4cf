"""`make bench-verify`: what verifying costs a server, as a share of what it does with a verifier that always says yes.

The example server, which lists threads, and an app that does nothing at all, each with `RedisVerifier` and with
`HTTPVerifier`, in rounds that alternate. Counted are requests for each second of CPU that the server has used: what one
core does when it is not shared.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from redis.asyncio import Redis

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "docs" / "examples" / "self-hosted")]

from server import guarded, verifier_of

from authority.parts import HASH, KEY
from bench.parts import OTHER_CORE, SERVICE_CORE, Running, load, redis_server, running
from chatkit_sessions import SessionMiddleware, VerifiedSession
from chatkit_sessions.record import session_id
from chatkit_sessions.redis import RedisVerifier
from service.upstream.authority.sessions import Authority
from support.processes import clean_environ, free_port
from support.tenants import tenant_file, write_config
from support.tokens import Signer

GOAL = 0.5
APPS = ("chatkit", "nothing")
KINDS = ("yes", "redis", "http")
SESSIONS = 500
BODY = json.dumps({"type": "threads.list", "params": {}})


class Yes:
    """Verifies nothing: somebody with a session, always the same."""

    def __init__(self, session: VerifiedSession) -> None:
        self._session = session

    async def verify(self, secret: str) -> VerifiedSession:
        """Say yes, having looked at the secret as any other would."""
        session_id(secret)
        return self._session

    async def take_upload(self, session: VerifiedSession, size: int) -> None:
        """Say yes."""

    async def ended(self, ids: Collection[str]) -> set[str]:  # noqa: ARG002
        """Say no."""
        return set()

    async def aclose(self) -> None:
        """Have nothing to close."""


async def sessions(redis_url: str, count: int) -> list[str]:
    """Have as many sessions issued; their secrets."""
    asked = {"workflow": {"id": "wf_bench"}, "rate_limits": {"max_requests_per_1_minute": 100_000}}
    async with Redis.from_url(redis_url) as redis:
        authority = Authority(redis)
        made = [await authority.create("acme", {"user": f"user-{number}", **asked}) for number in range(count)]
    return [session["client_secret"] for session in made]


async def somebody(redis_url: str) -> VerifiedSession:
    """Return a session for `Yes`."""
    verifier = RedisVerifier(redis_url)
    (secret,) = await sessions(redis_url, 1)
    session = await verifier.verify(secret)
    await verifier.aclose()
    return session


async def nothing(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def serve(app: str, kind: str, port: int, environ: Mapping[str, str]) -> None:
    """Be the server that is measured."""
    given = {name: value for name, value in environ.items() if kind != "http" or name != "CHAT_REDIS_URL"}
    yes = Yes(asyncio.run(somebody(environ["CHAT_REDIS_URL"]))) if kind == "yes" else None
    verifier = yes or verifier_of(given)
    whole = guarded(given, verifier) if app == "chatkit" else SessionMiddleware(nothing, verifier)
    uvicorn.run(whole, port=port, log_level="warning", access_log=False)


@contextmanager
def service(home: Path, redis_url: str) -> Iterator[str]:
    """`chatkit-mint serve`, which `HTTPVerifier` asks."""
    signer, port = Signer(), free_port()
    identity = {"issuer": signer.issuer, "audience": "acme", "algorithms": ["ES256"], "jwks": signer.jwks}
    keys = [{"name": "chat", "sha256": HASH, "may": ["verify"]}]
    config = write_config(home, tenant_file("acme", identity, service_keys=keys))
    environ = clean_environ(
        CHATKIT_MINT_CONFIG_DIR=str(config),
        CHATKIT_MINT_REDIS_URL=redis_url,
        CHATKIT_MINT_PORT=str(port),
        CHATKIT_MINT_OPS_PORT=str(free_port()),
    )
    url = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "service", "serve"], OTHER_CORE, url, environ=environ):
        yield url


@contextmanager
def server(app: str, kind: str, home: Path, redis_url: str, mint_url: str) -> Iterator[Running]:
    """The server with one of the verifiers, on a core of its own."""
    port = free_port()
    environ = clean_environ(
        CHAT_DIR=str(home / kind), CHAT_REDIS_URL=redis_url, CHAT_MINT_URL=mint_url, CHAT_MINT_KEY=KEY
    )
    url = f"http://127.0.0.1:{port}"
    with running([sys.executable, __file__, "--serve", app, kind, str(port)], SERVICE_CORE, url, environ=environ) as it:
        yield it


def compare(app: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure; the rates of each kind."""
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_url = stack.enter_context(redis_server())
        mint_url = stack.enter_context(service(home / "config", redis_url))
        servers = {kind: stack.enter_context(server(app, kind, home, redis_url, mint_url)) for kind in KINDS}
        for number in range(rounds):
            secrets = asyncio.run(sessions(redis_url, SESSIONS))
            for kind in KINDS if number % 2 else KINDS[::-1]:
                one = servers[kind]
                load(one.url + "/chatkit", seconds=1, tokens=secrets, body=BODY, connections=16)
                before = one.cpu()
                got = load(one.url + "/chatkit", seconds=seconds, tokens=secrets, body=BODY, connections=16)
                if got.errors:
                    sys.exit(f"{kind}: {got.errors} requests failed")
                rates[kind].append(got.rate * seconds / (one.cpu() - before))
                times = f"p50 {got.p50 * 1e3:.1f} ms, p99 {got.p99 * 1e3:.1f} ms"
                print(f"  {app:7} {kind:6} {rates[kind][-1]:6.0f} requests a core and second; {times}", flush=True)
    return rates


def main() -> None:
    """Measure and tell; end with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=3, metavar=("APP", "KIND", "PORT"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    if given.serve:
        app, kind, port = given.serve
        serve(app, kind, int(port), os.environ)
        return
    missed = False
    for app in APPS:
        rates = compare(app, given.rounds, given.seconds)
        for kind in KINDS[1:]:
            share = statistics.median(ours / yes for ours, yes in zip(rates[kind], rates["yes"], strict=True))
            missed = missed or (app == "chatkit" and share < GOAL)
            goal = f" (goal: at least {GOAL})" if app == "chatkit" else ""
            print(f"{app}, {kind}: {share:.2f} of the throughput{goal}", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
