"""What a benchmark needs around the service: upstreams, Redis, tokens, a load generator; each on its own core."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.store.private import find_redis_server
from support.processes import clean_environ, free_port
from support.tenants import tenant_file, write_config
from support.tokens import Signer

HERE = Path(__file__).parent
SERVICE_CORE, OTHER_CORE = "0", "1"
EITHER = f"{SERVICE_CORE},{OTHER_CORE}"
READY = 30.0
"""Seconds."""


@dataclass(frozen=True)
class Running:
    """A process under way, and where it answers."""

    popen: subprocess.Popen[bytes]
    url: str

    def cpu(self) -> float:
        """CPU seconds that it and its children have used."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(_ticks(pid) for pid in _family(self.popen.pid)) / ticks

    def shares(self) -> list[float]:
        """CPU seconds of each process, its own first."""
        return [_ticks(pid) / os.sysconf("SC_CLK_TCK") for pid in _family(self.popen.pid)]

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextmanager
def running(
    command: Sequence[str], core: str, url: str, *, environ: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Running]:
    """Run *command* on *core* until the end; it is ready when its port takes connections."""
    pinned = ["taskset", "-c", core, *command] if shutil.which("taskset") else [*command]
    with (log or Path(os.devnull)).open("wb") as sink:
        popen = subprocess.Popen(pinned, stdout=sink, stderr=subprocess.STDOUT, env=dict(environ or clean_environ()))
    try:
        _wait_for(popen, url)
        yield Running(popen, url)
    finally:
        popen.terminate()
        try:
            popen.wait(20)
        except subprocess.TimeoutExpired:
            popen.kill()


def _wait_for(popen: subprocess.Popen[bytes], url: str) -> None:
    host, _, port = url.split("/")[2].partition(":")
    deadline = time.monotonic() + READY
    while popen.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{popen.args!r} did not start")


NGINX = """
worker_processes 1; daemon off; pid {home}/pid; error_log /dev/null; user root;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 300;
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home};
  uwsgi_temp_path {home}; scgi_temp_path {home}; default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{ return 200 '{answer}'; }}
  }}
}}
"""


def session_answer(identity: str) -> str:
    """A session as upstream answers it, with an id of its own."""
    return json.dumps(
        {
            "id": identity,
            "object": "chatkit.session",
            "client_secret": f"ek_{identity}",
            "expires_at": int(time.time()) + 600,
            "status": "active",
            "user": "somebody",
            "workflow": {"id": "wf_bench", "version": None, "state_variables": None, "tracing": {"enabled": True}},
            "rate_limits": {"max_requests_per_1_minute": 20},
            "max_requests_per_1_minute": 20,
            "chatkit_configuration": {
                "automatic_thread_titling": {"enabled": True},
                "file_upload": {"enabled": True, "max_file_size": 20, "max_files": 5},
                "history": {"enabled": True, "recent_threads": None},
            },
        }
    )


@contextmanager
def upstream_at_once() -> Iterator[str]:
    """An upstream that answers at once: nginx where present, else one of ours. Gives its base URL."""
    if not shutil.which("nginx"):
        with upstream_that_takes(0.0) as url:
            yield url
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nginx.conf"
        config.write_text(NGINX.format(home=home, port=port, answer=session_answer("cksess_${request_id}")))
        with running(["nginx", "-c", str(config)], OTHER_CORE, f"http://127.0.0.1:{port}/v1") as server:
            yield server.url


@contextmanager
def upstream_that_takes(seconds: float) -> Iterator[str]:
    """An upstream that takes that long for each call, however many."""
    port = free_port()
    command = [sys.executable, str(HERE / "slow_upstream.py"), str(port), str(seconds)]
    with running(command, OTHER_CORE, f"http://127.0.0.1:{port}/v1") as server:
        yield server.url


@contextmanager
def redis_server() -> Iterator[str]:
    """An empty Redis over TCP, as a service would have it; its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        options = ["--port", str(port), "--dir", home, "--save", "", "--appendonly", "no"]
        with running([str(find_redis_server()), *options], OTHER_CORE, f"http://127.0.0.1:{port}"):
            yield f"redis://127.0.0.1:{port}/0"


class House:
    """A configuration with *tenants* tenants of one issuer each, of which the first is the one that is asked."""

    def __init__(self, home: Path, upstream: str, alg: str, *, tenants: int = 1, **upstream_options: Any) -> None:
        self.tenants = tenants
        self.signer = Signer("https://login.bench.example/", "bench", alg=alg)
        self.config = write_config(
            home, *(self._tenant(number, upstream, alg, upstream_options) for number in range(tenants))
        )

    def _tenant(self, number: int, upstream: str, alg: str, options: Mapping[str, Any]) -> dict[str, Any]:
        plans = ("free", "pro", "team")
        return tenant_file(
            f"tenant-{number}",
            {"issuer": _issuer(number), "audience": "bench", "algorithms": [alg], "jwks": self.signer.jwks},
            upstream={"kind": "openai", "base_url": upstream, "api_key": {"env": "BENCH_KEY"}, **options},
            session={
                "workflow": {"id": "wf_bench", "state_variables": {"plan": "${claims.plan}"}},
                "expires_after": {"seconds": 600},
                "rate_limits": {"max_requests_per_1_minute": 20},
            },
            rules=[
                {
                    "name": f"{plan} uploads",
                    "when": f'claims.plan == "{plan}"',
                    "session": {
                        "chatkit_configuration": {"file_upload": {"enabled": True, "max_files": 5, "max_file_size": 20}}
                    },
                }
                for plan in plans
            ],
            client_may={"rate_limits.max_requests_per_1_minute": {"max": 20}},
            quota={"mints": ["1000/minute", "100000/day"], "live_sessions": {"max": 50, "excess": "cancel_oldest"}},
        )

    def tokens(self, count: int) -> list[str]:
        """Tokens of as many users, each of a login of its own, of one tenant after the other."""
        plans, until = ("free", "pro", "team"), int(time.time()) + 7200
        return [
            self.signer.token(
                f"auth0|{number:024d}", plan=plans[number % 3], exp=until, iss=_issuer(number % self.tenants)
            )
            for number in range(count)
        ]


def _issuer(number: int) -> str:
    return f"https://login-{number}.bench.example/" if number else "https://login.bench.example/"


@contextmanager
def service(
    house: House, redis_url: str, *, core: str = SERVICE_CORE, log: Path | None = None, **settings: str
) -> Iterator[Running]:
    """`chatkit-mint serve` with everything on."""
    port = free_port()
    environ = clean_environ(
        **{
            "CHATKIT_MINT_CONFIG_DIR": str(house.config),
            "CHATKIT_MINT_REDIS_URL": redis_url,
            "CHATKIT_MINT_PORT": str(port),
            "CHATKIT_MINT_OPS_PORT": str(free_port()),
            "BENCH_KEY": "sk-" + secrets.token_hex(16),
            **settings,
        }
    )
    with running(
        [sys.executable, "-m", "service", "serve"], core, f"http://127.0.0.1:{port}", environ=environ, log=log
    ) as it:
        yield it


@dataclass(frozen=True)
class Load:
    """What the load generator saw. Times are seconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def load(
    url: str,
    *,
    seconds: float,
    connections: int = 64,
    tokens: Sequence[str] = (),
    body: str = "",
    timeout: float = 10,
    think: float = 0.0,
) -> Load:
    """POST to *url* with wrk for that long, a token of *tokens* after the other.

    Each connection asks again at once, or after a time by chance that is *think* seconds in the mean.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (home / "tokens").write_text("\n".join(tokens))
        script = (HERE / "wrk.lua").read_text()
        given = {"TOKENS": str(home / "tokens"), "BODY": json.dumps(body), "THINK": f"{think * 1000:g}"}
        for name, value in given.items():
            script = script.replace(name, value)
        (home / "wrk.lua").write_text(script)
        command = [
            "taskset",
            "-c",
            OTHER_CORE,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            f"--timeout={timeout:g}s",
        ]
        ran = subprocess.run(
            [*command, "-s", str(home / "wrk.lua"), url],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60,
        )
        if ran.returncode:
            raise RuntimeError(f"wrk against {url}: {ran.stdout[-300:]} {ran.stderr[-300:]}")
    told = json.loads(ran.stdout.rpartition("JSON ")[2])
    return Load(told["requests"] / told["seconds"], told["p50"], told["p99"], told["errors"])
