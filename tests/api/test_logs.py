"""The log of `serve`: JSON, one line a request, and nothing that a caller wrote as it was written."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from api.parts import eventually
from api.stack import Service, Someone

pytestmark = pytest.mark.process

ALWAYS = {"request_id", "route", "method", "status", "outcome", "duration_ms", "timestamp", "level", "event"}


def test_every_line_is_json(service: Service, someone: Someone) -> None:
    someone().minted()
    lines = service.process.text().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict), line


def test_a_mints_line_tells_what_happened(someone: Someone) -> None:
    alice = someone()
    answer = alice.mint()
    line = alice.service.line(answer)
    assert set(line) >= ALWAYS | {"tenant", "session_id", "upstream_request_id", "upstream_ms"}
    assert (line["event"], line["route"], line["method"]) == ("request", "/v1/chatkit/sessions", "POST")
    assert (line["status"], line["outcome"], line["tenant"]) == (200, "ok", "acme")
    assert line["session_id"] == answer.json()["id"]
    assert 0 < line["upstream_ms"] <= line["duration_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*Z", line["timestamp"])
    assert alice.subject not in json.dumps(line)


def test_every_request_has_one_line_with_its_outcome(someone: Someone) -> None:
    alice = someone()
    http = alice.service.http
    answers = {
        "ok": alice.get("/v1/chatkit/sessions"),
        "missing_credentials": http.post("/v1/logout"),
        "invalid_request": alice.mint(colour="red"),
        "user_mismatch": alice.mint(user="mallory"),
        "not_found": http.get("/nothing/here?secret=1"),
        "method_not_allowed": http.delete("/v1/logout"),
        "body_too_large": http.post("/v1/logout", headers=alice.headers, content=b" " * 70_000),
        "unsupported_media_type": http.post("/v1/logout", headers=alice.headers, content=b"{}"),
        "upstream_refused": someone("lost").mint(),
        "upstream_unavailable": someone("nowhere").mint(),
    }
    for outcome, answer in answers.items():
        line = alice.service.line(answer)
        assert set(line) >= ALWAYS
        assert (line["outcome"], line["status"]) == (outcome, answer.status_code)
        assert isinstance(line["duration_ms"], float)
        mine = answer.headers["x-request-id"]
        assert [each.get("request_id") for each in alice.service.lines()].count(mine) == 1


def test_a_route_is_never_the_path_that_the_caller_wrote(someone: Someone) -> None:
    alice = someone()
    answers = [alice.cancel("cksess_of_my_own"), alice.get("/v1/of-my-own"), alice.get("/v1/logout?of-my-own")]
    lines = [alice.service.line(answer) for answer in answers]
    assert [line["route"] for line in lines] == ["/v1/chatkit/sessions/{session_id}/cancel", "none", "/v1/logout"]
    assert not any("own" in json.dumps(line) for line in lines)


def test_a_request_id_is_ours_whatever_the_caller_sends(someone: Someone) -> None:
    alice = someone()
    answer = alice.service.http.get("/v1/chatkit/sessions", headers={**alice.headers, "x-request-id": "mine"})
    assert re.fullmatch(r"req_\w{16,}", answer.headers["x-request-id"])
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]


def test_a_field_name_can_not_forge_a_line(someone: Someone) -> None:
    alice = someone()
    answer = alice.mint(**{'x"}\n{"event":"forged': 1})
    assert alice.service.line(answer)["field"].endswith("forged")
    assert not any(line["event"] == "forged" for line in alice.service.lines())


def test_a_caller_who_hangs_up_is_no_defect_of_ours(service: Service, someone: Someone) -> None:
    """A line tells of it, but not as a 500: callers could raise the error rate as they please."""
    alice = someone()
    defects = service.counted("refusals", code="internal_error")
    before = len(service.lines())
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST /v1/chatkit/sessions HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {alice.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        connection.sendall(head.encode())
    eventually(lambda: len(service.lines()) > before)
    [line] = service.lines()[before:]
    assert line["event"] == "request"
    assert line["status"] < 500
    assert line["outcome"] != "internal_error"
    assert service.counted("refusals", code="internal_error") == defects
