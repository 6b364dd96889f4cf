"""Everything that the dashboards and alerts are about, made to happen to really running services within seconds.

`pair` is two workers on one Redis, with tenants whose upstreams fail each in its own way; `lone` is one process with a
Redis of its own, which is frozen for a while, and a tenant whose issuer is not there.
"""

import json
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from api.parts import AUTHORITY_DB, SERVICE_DB, Issuer, RedisServer, eventually, stopping
from api.stack import Caller, Service
from service.store.records import readable, write_queued
from support.house import House
from support.processes import Process, clean_environ, deaf_port
from support.tenants import tenant_file, write_config
from watch.parts import RULES, Prometheus

EVERY = "500ms"
"""Between scrapes, and between evaluations."""
AUTHORITIES = {
    "main": ["--fault", "latency=0.02"],
    "failing": ["--fault", "failing=1"],
    "dropping": ["--fault", "drop_after_create=1"],
    "stuck": ["--fault", "cancel_failing=1"],
}
QUICKER = {
    "ChatkitMintCancelsPending": ("> 60", "> 2"),
    "ChatkitMintExposureLong": ("> 30", "> 0.01"),
    "ChatkitMintKeysOld": ("> 7200", "> 1"),
    "ChatkitMintKeysExpiring": ("> 72000", "> 2"),
}
"""Thresholds in seconds that a test can't wait for, and what stands in for them."""


def quicker(text: str) -> str:
    """Rules as they are, but that no alert waits (`for`), and thresholds as above. Windows stay: they are emptier."""
    text = re.sub(r"^( +for): \w+$", r"\1: 0s", text, flags=re.MULTILINE)
    text = re.sub(r"^ +interval: \w+\n", "", text, flags=re.MULTILINE)
    for name, (threshold, instead) in QUICKER.items():
        before, found, after = text.partition(f"alert: {name}\n")
        text = before + found + (after.replace(threshold, instead, 1) if found else after)
    return text


class Drifting:
    """An upstream that makes sessions of another workflow than it was asked for."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                session = {"id": f"cksess_{secrets.token_hex(8)}", "client_secret": "ek_1", "workflow": {"id": "wf_2"}}
                body = json.dumps({"object": "chatkit.session", **session}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Scene:
    """What runs."""

    prometheus: Prometheus
    issuer: Issuer
    redis: RedisServer
    lone_redis: RedisServer
    pair: House
    lone: Service
    config: Path

    def someone(self, tenant: str, *, lone: bool = False) -> Caller:
        service = self.lone if lone else self.pair.service
        return Caller(service, self.issuer, tenant, f"user-{secrets.token_hex(6)}")

    def play(self) -> None:
        """Let it all happen: what needs time begins first."""
        eventually(lambda: len(self.prometheus.query('up{job="chatkit-mint"} == 1')) == 2)
        time.sleep(1.0)  # a scrape of each before anything happens: what is counted then has a zero to be told from
        together(self.kill_workers, self.lose_redis, self.miss_keys)
        (self.config / "tenants" / "broken.yaml").write_text("tenant: broken\n")
        together(self.mint_and_log_out, self.meet_limits, self.fail_upstream, self.get_stuck)

    def mint_and_log_out(self) -> None:
        for _ in range(30):
            alice = self.someone("acme")
            alice.minted()
            alice.log_out()
            alice.mint(colour="red")
            self.someone("acme").minted()
            time.sleep(0.1)

    def meet_limits(self) -> None:
        alice = self.someone("tight")
        for _ in range(12):
            alice.mint()
            time.sleep(0.2)

    def fail_upstream(self) -> None:
        for _ in range(25):
            for tenant in ("failing", "dropping", "drifting", "nowhere"):
                self.someone(tenant).mint()
            time.sleep(0.1)

    def get_stuck(self) -> None:
        """Sessions that upstream does not cancel; and one whose time is over, as though ten minutes had passed."""
        for _ in range(3):
            alice = self.someone("stuck")
            alice.minted()
            alice.log_out()
        with self.redis.client() as redis:
            key: bytes = next(iter(redis.scan_iter("cm:{stuck:*}:queue")))
            entries: Any = redis.hgetall(key)
            (queued,) = readable(entries.items())
            over = replace(queued, live=queued.live._replace(expires_at=int(time.time()) - 61))
            redis.hset(key.decode(), over.id, write_queued(over))

    def lose_redis(self) -> None:
        callers = [self.someone("lone", lone=True) for _ in range(30)]
        for caller in callers:
            caller.minted()
        self.lone_redis.freeze()
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(Caller.log_out, callers))
        self.lone_redis.thaw()

    def miss_keys(self) -> None:
        for _ in range(8):
            self.someone("away", lone=True).mint()
            time.sleep(0.3)

    def kill_workers(self) -> None:
        """Each twice. Before all that only the workers know, such as breakers."""
        for _ in range(2):
            for pid in list(self.pair.workers().values()):
                self.pair.kill(pid, signal.SIGKILL)


def together(*parts: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(parts)) as pool:
        for each in [pool.submit(part) for part in parts]:
            each.result()


@contextmanager
def staged(home: Path) -> Iterator[Scene]:
    """Everything started; nothing has happened yet."""
    with ExitStack() as stack:

        def ended(each: Any) -> Any:
            stack.callback(each.stop if isinstance(each, RedisServer) else each.close)
            return each

        issuer, drifting = ended(Issuer()), ended(Drifting())
        redis, lone_redis = ended(RedisServer(home / "redis")), ended(RedisServer(home / "lone-redis"))
        environ = clean_environ(CHATKIT_MINT_REDIS_URL=redis.url(AUTHORITY_DB))
        authorities = {
            name: Process("authority", "--port", "0", *options, output=home / name, environ=environ)
            for name, options in AUTHORITIES.items()
        }
        stack.enter_context(stopping(list(authorities.values())))
        ready = r"authority is ready\b.*?(http://\S+)"
        urls = {name: each.wait_for(ready)[1] for name, each in authorities.items()}
        urls |= {"drifting": drifting.url, "nowhere": f"http://127.0.0.1:{deaf_port()}/v1"}
        config = write_config(home / "config", *tenants(issuer, urls))
        away = {**issuer.identity("away"), "issuer": f"http://127.0.0.1:{deaf_port()}"}
        own = {"kind": "openai", "base_url": urls["main"], "api_key": {"env": "ACME_KEY"}}
        lone_config = write_config(
            home / "lone-config",
            tenant_file("lone", issuer.identity("lone"), upstream=own),
            tenant_file("away", away, upstream=own),
        )
        (home / "tmp").mkdir()
        pair = ended(
            Service(
                home / "pair",
                config,
                redis.url(SERVICE_DB),
                TMPDIR=str(home / "tmp"),
                CHATKIT_MINT_WORKERS="2",
                CHATKIT_MINT_AUDIT_FILE="/dev/full",
                CHATKIT_MINT_LOGOUT_WAIT="0.5",
            )
        )
        lone = ended(Service(home / "lone", lone_config, lone_redis.url(SERVICE_DB)))
        quick = home / "rules"
        quick.mkdir()
        for file in RULES.glob("*.rules.yml"):
            (quick / file.name).write_text(quicker(file.read_text()))
        targets = [service.wait().operations.removeprefix("http://") for service in (pair, lone)]
        prometheus = ended(Prometheus(home / "prometheus", targets, quick, every=EVERY))
        prometheus.wait()
        yield Scene(prometheus, issuer, redis, lone_redis, House(pair, home / "tmp"), lone, config)


def tenants(issuer: Issuer, upstreams: dict[str, str]) -> list[dict[str, Any]]:
    def tenant(name: str, upstream: str, **sections: Any) -> dict[str, Any]:
        place = {"kind": "openai", "base_url": upstreams[upstream], "api_key": {"env": "ACME_KEY"}}
        return tenant_file(name, issuer.identity(name), upstream=place, **sections)

    return [
        tenant("acme", "main"),
        tenant("tight", "main", quota={"mints": ["2/minute"]}),
        *(tenant(name, name) for name in upstreams if name != "main"),
    ]
