"""An upstream that knows keys, their projects, and the projects' workflows, as OpenAI does."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self


@dataclass
class Projects:
    """*workflows* by key; what was created and cancelled."""

    workflows: Mapping[str, set[str]]
    named: Mapping[str, str] = field(default_factory=dict)
    """A key's project, where a request that names another is refused."""
    cancels_fail: bool = False
    created: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"projects": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, key: str, project: str | None, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if key in TROUBLE:
            return TROUBLE[key]
        if key not in self.workflows or (path.endswith("/cancel") and self.cancels_fail):
            return 401, _error("invalid_api_key")
        if project and self.named.get(key, project) != project:
            return 401, _error("mismatched_project")
        if path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[-2])
            return 200, {"status": "cancelled"}
        return self.create(key, body)

    def create(self, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        if "colour" in body["workflow"].get("state_variables", {}):
            return 400, _error("unknown_parameter")
        if body["workflow"]["id"] not in self.workflows[key]:
            return 404, _error(None)
        self.created.append(body)
        expires = int(time.time()) + body["expires_after"]["seconds"]
        return 200, {"id": f"cksess_{len(self.created)}", "client_secret": "ek_1", "expires_at": expires}


def _error(code: str | None) -> dict[str, Any]:
    return {"error": {"message": "as the test says", "type": "invalid_request_error", "param": None, "code": code}}


TROUBLE = {
    "sk-without-rights": (403, _error("insufficient_permissions")),
    "sk-out-of-credit": (429, _error("insufficient_quota")),
}


class _Handler(BaseHTTPRequestHandler):
    projects: ClassVar[Projects]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self.headers["authorization"].removeprefix("Bearer ")
        status, value = self.projects.answer(
            key, self.headers.get("openai-project"), self.path, json.loads(raw) if raw else {}
        )
        answer = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass
