"""The proxies of docs/self-hosting.md, on ports of a test's own."""

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from deploy.proxied import AROUND, certificate
from support.checkers import checker
from support.processes import ROOT, free_port

NGINX = ROOT / "deploy" / "nginx" / "forward-auth.conf"
PAGE = ROOT / "docs" / "self-hosting.md"


@contextmanager
def nginx(home: Path, authorize: str, chat: str) -> Iterator[httpx2.AsyncClient]:
    """A client of nginx in front of *chat*, which asks *authorize* (both host:port)."""
    program = checker("nginx")
    certificate(home)
    port = free_port()
    changes = (
        (r"^    server 127\.0\.0\.1:8080 .*;$", f"    server {authorize};"),
        (r"^    server 127\.0\.0\.1:8000;$", f"    server {chat};"),
        (r"^    listen 443 ", f"    listen 127.0.0.1:{port} "),
        (r"^    listen \[::\]:443 .*\n", ""),
        (r"/etc/ssl/chat\b", str(home)),
    )
    (home / "chatkit-mint.conf").write_text(changed(NGINX.read_text(), changes))
    config = home / "nginx.conf"
    config.write_text(AROUND.format(home=home, user="user root;" if os.geteuid() == 0 else ""))
    log = home / "error.log"
    command = [program, "-p", str(home), "-c", str(config), "-e", str(log), "-g", "daemon off;"]
    trust = ssl.create_default_context(cafile=str(home / "fullchain.pem"))
    with running(command, port, log):
        yield httpx2.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False, timeout=30)


@contextmanager
def caddy(home: Path, authorize: str, chat: str) -> Iterator[httpx2.AsyncClient]:
    """The same with Caddy."""
    program = checker("caddy")
    (example,) = re.findall(r"^```caddyfile\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    port = free_port()
    changes = (
        (r"^chat\.example\.com \{", f"http://127.0.0.1:{port} {{"),
        (r"127\.0\.0\.1:8080", authorize),
        (r"127\.0\.0\.1:8000", chat),
    )
    config, log = home / "Caddyfile", home / "caddy.log"
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + changed(example, changes))
    command = [program, "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(command, port, log, XDG_DATA_HOME=str(home), XDG_CONFIG_HOME=str(home)):
        yield httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)


PROXIES = {"nginx": nginx, "caddy": caddy}


def changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for pattern, instead in changes:
        text, found = re.subn(pattern, instead, text, flags=re.MULTILINE)
        assert found, f"the example has no {pattern} any more"
    return text


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **environ: str) -> Iterator[None]:
    with (
        log.open("ab") as sink,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env={**os.environ, **environ}
        ) as popen,
    ):
        try:
            deadline = time.monotonic() + 15
            while not listens(port):
                assert popen.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield
        finally:
            popen.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
