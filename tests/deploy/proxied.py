"""The nginx example on ports and with a certificate of a test's own, and upstreams that are not the service."""

import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.checkers import checker
from support.processes import ROOT, free_port

EXAMPLE = ROOT / "deploy" / "nginx" / "chatkit-mint.conf"
AROUND = """
pid {home}/pid;
error_log {home}/error.log warn;
worker_processes 1;
{user}
events {{ worker_connections 128; }}
http {{
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    include {home}/chatkit-mint.conf;
}}
"""


def certificate(home: Path) -> None:
    """A self-signed certificate for this machine, good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mint.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (home / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (home / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def configure(home: Path, port: int, *upstreams: str) -> Path:
    """Write the example with this test's addresses, and what Debian has around it."""
    text = EXAMPLE.read_text()
    servers = "\n".join(f"    server {each} max_fails=1 fail_timeout=5s;" for each in upstreams)
    for pattern, instead in (
        (r"^    server 127\.0\.0\.1:8080 .*;$", servers),
        (r"^    listen 443 ", f"    listen 127.0.0.1:{port} "),
        (r"^    listen \[::\]:443 .*\n", ""),
        (r"/etc/ssl/chatkit-mint", str(home)),
        (r"/var/log/nginx", str(home)),
    ):
        text, found = re.subn(pattern, instead, text, flags=re.MULTILINE)
        assert found, f"the example has no {pattern} any more"
    (home / "chatkit-mint.conf").write_text(text)
    whole = home / "nginx.conf"
    whole.write_text(AROUND.format(home=home, user="user root;" if os.geteuid() == 0 else ""))
    return whole


@contextmanager
def nginx(home: Path, *upstreams: str) -> Iterator[httpx2.Client]:
    """The example in front of *upstreams* (host:port), and a client that trusts its certificate."""
    program = checker("nginx")
    certificate(home)
    port = free_port()
    config = configure(home, port, *upstreams)
    command = [program, "-p", str(home), "-c", str(config), "-e", str(home / "error.log"), "-g", "daemon off;"]
    trust = ssl.create_default_context(cafile=str(home / "fullchain.pem"))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT) as running:
        try:
            _wait(port, running, home)
            with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as client:
                yield client
        finally:
            running.terminate()


def _wait(port: int, running: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nginx did not start:\n{(home / 'error.log').read_text()}")


class Listener:
    """An upstream that keeps the headers of what reaches it; one that is *deaf* hangs up in place of an answer."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.heard: list[dict[str, str]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                listener.heard.append({name.lower(): value for name, value in self.headers.items()})
                if deaf:
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
