"""What stands between a page and the service: a web server with the pages, and a way to the service that may fail."""

import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

MINT = "/v1/chatkit/sessions"
PAGE = "<!doctype html><meta charset=utf-8><title>page</title>"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Trouble:
    """What befalls one mint on its way: an answer of somebody else, or with status 0 none at all."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


class Front:
    """Pages at their paths; what is below `/v1/` and `/api/` goes to the service. Threads, so that a test may block."""

    def __init__(self) -> None:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                front._handle(self)

            do_POST = do_OPTIONS = do_GET  # noqa: N815  (the names that the base class looks for)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.service = ""
        self.pages: dict[str, tuple[str, str]] = {}
        self.begin()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def begin(self) -> None:
        """Forget what the last test did."""
        self.pages = {"/": ("text/html", PAGE), "/favicon.ico": ("text/plain", "")}
        self.asked: list[str] = []
        self.trouble: list[Trouble] = []
        self.answering = threading.Event()
        self.answering.set()

    def mints(self) -> int:
        return self.asked.count(f"POST {MINT}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", "0")))
        path = request.path.partition("?")[0]
        self.asked.append(f"{request.command} {path}")
        if not path.startswith(("/v1/", "/api/")):
            kind, text = self.pages.get(path, ("text/plain", ""))
            self._answer(request, 200 if path in self.pages else 404, [("content-type", kind)], text.encode())
        elif path == MINT and request.command == "POST" and self.trouble:
            trouble = self.trouble.pop(0)
            if trouble.status:
                self._answer(request, trouble.status, [*trouble.headers.items()], trouble.body.encode())
            else:
                request.close_connection = True
        else:
            self._forward(request, path, body)

    def _forward(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        service = http.client.HTTPConnection(urlsplit(self.service).netloc, timeout=30)
        kept = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        service.request(request.command, path, body or None, kept)
        answer = service.getresponse()
        content = answer.read()
        service.close()
        if path == MINT and request.command == "POST":
            self.answering.wait(timeout=20)
        self._answer(request, answer.status, answer.getheaders(), content)

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                request.send_header(name, value)
        request.send_header("content-length", str(len(content)))
        request.end_headers()
        try:
            request.wfile.write(content)
        except OSError:  # the page has left
            request.close_connection = True
