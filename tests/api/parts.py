"""The machines around the service: a Redis that can be taken away, and an identity provider."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from service.store.private import find_redis_server
from support.processes import Process
from support.tokens import Signer

STARTED_WITHIN = 30.0
SERVICE_DB, AUTHORITY_DB = 0, 1

T = TypeVar("T")


def eventually(get: Callable[[], T], *, within: float = 10.0) -> T:
    """Ask until the answer is true; return it."""
    deadline = time.monotonic() + within
    while not (got := get()):
        assert time.monotonic() < deadline, f"still {got!r} after {within} s"
        time.sleep(0.01)
    return got


class RedisServer:
    """A redis-server on a socket, which a test may stop, freeze and start again (empty)."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.socket = home / "redis.sock"
        self.start()

    def url(self, db: int) -> str:
        return f"unix://{self.socket}?db={db}"

    def client(self, db: int = SERVICE_DB) -> Redis:
        return Redis(unix_socket_path=str(self.socket), db=db)

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self._popen = subprocess.Popen(
            [str(find_redis_server()), *options, "--dir", str(self.home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(self._answers, within=STARTED_WITHIN)

    def stop(self) -> None:
        self.thaw()
        self._popen.terminate()
        self._popen.wait(timeout=10)

    def freeze(self) -> None:
        """Stay there, accept connections and answer nothing."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def leases(self, tenant: str) -> int:
        """How many mints of the tenant are admitted and not yet recorded."""
        with self.client() as client:
            users: list[bytes] = list(client.scan_iter(f"cm:{{{tenant}:*}}:live"))
            return sum(client.get(user).count(b"\n~") for user in users)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            assert self._popen.poll() is None, "redis-server ended"
            return False


class Issuer:
    """An identity provider: discovery and keys over HTTP, from a thread, and tokens signed with its key."""

    def __init__(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = issuer.documents.get(self.path)
                body = json.dumps(document).encode()
                self.send_response(200 if document else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._signer = Signer(self.url)
        self.documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/jwks.json"},
            "/jwks.json": self._signer.jwks,
        }
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def identity(self, tenant: str) -> dict[str, Any]:
        """The `identity` entry of a tenant that believes this issuer."""
        return {"issuer": self.url, "audience": f"{tenant}-app", "algorithms": ["ES256"]}

    def token(self, tenant: str, subject: str, **claims: Any) -> str:
        return self._signer.token(subject, **{"aud": f"{tenant}-app", **claims})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stopping(processes: list[Process]) -> Iterator[None]:
    """End the processes with the context, whatever happens in it."""
    try:
        yield
    finally:
        for process in processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in processes:
            process.stop()


def stopped_exit(process: Process) -> int:
    """Wait for a process that ends by itself, and return its exit code."""
    try:
        return process.popen.wait(timeout=STARTED_WITHIN)
    finally:
        process.stop(signal.SIGKILL)
