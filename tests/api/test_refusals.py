"""What bad input gets: one shape for every no, and the field that is wrong by its name."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from api.stack import Someone, Upstream

pytestmark = pytest.mark.process

SESSIONS = "/v1/chatkit/sessions"
SHAPE = {"type", "title", "status", "detail", "code", "request_id"}
JSON = {"content-type": "application/json"}


def refused(answer: httpx2.Response, status: int, code: str, *, field: str | None = None) -> dict[str, Any]:
    """Check the shape of a refusal (RFC 9457 and what goes on top of it) and return its body."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    compatible = answer.request.url.path.startswith("/v1/chatkit/")
    extra = {"error"} if compatible else set()
    assert set(body) == SHAPE | extra | ({"field"} if field else set())
    assert (body["status"], body["code"], body.get("field")) == (status, code, field)
    assert body["title"] == answer.reason_phrase
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"]
    assert answer.headers["cache-control"] == "no-store"
    if compatible:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert (body["error"]["code"], body["error"]["param"]) == (code, field)
        assert body["error"]["message"] == body["detail"]
    return body


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Basic YWxpY2U6c2VjcmV0"}, {"authorization": "Bearer"}, {"authorization": "bearer"}],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", SESSIONS), ("GET", SESSIONS), ("POST", f"{SESSIONS}/cksess_1/cancel"), ("POST", "/v1/logout")],
)
def test_no_credentials(someone: Someone, method: str, path: str, headers: dict[str, str]) -> None:
    """RFC 6750 §3.1: a challenge, and no error attribute where nothing was sent."""
    answer = someone().service.http.request(method, path, headers=headers)
    refused(answer, 401, "missing_credentials")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "..", "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30.", "x" * 20_000, "sk-proj-abc", "ä.ö.ü"]
)
def test_malformed_credentials(someone: Someone, token: str) -> None:
    answer = someone().service.http.post(SESSIONS, headers={b"authorization": f"Bearer {token}".encode()})
    body = refused(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert token[:20] not in body["detail"]


def test_a_token_whose_time_is_over_says_so(someone: Someone) -> None:
    """Nothing else is wrong with it, so a page knows to renew it."""
    alice = someone()
    answer = alice.again(exp=1_700_000_000, iat=1_699_999_000).mint()
    refused(answer, 401, "token_expired")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_every_bad_token_reads_the_same(someone: Someone) -> None:
    """The reason is for the log: the answer is no oracle."""
    alice = someone()
    expired = alice.again(exp=1_700_000_000, iat=1_699_999_000, nonce="of an ID token")
    stranger = alice.again(aud="nobody-app")
    foreign = alice.again(iss="https://elsewhere.example/")
    answers = [caller.mint() for caller in (expired, stranger, foreign)]
    answers.append(alice.service.http.post(SESSIONS, headers={"authorization": f"Bearer {alice.token[:-8]}AAAAAAAA"}))
    bodies = [refused(answer, 401, "invalid_token") for answer in answers]
    assert len({json.dumps(body | {"request_id": ""}) for body in bodies}) == 1
    reasons = {alice.service.line(answer)["reason"] for answer in answers}
    assert len(reasons) == 4


@pytest.mark.parametrize("claim", ["sub", "sid"])
@pytest.mark.parametrize("value", ["", 7, ["alice"], "x" * 257, "\ud800"], ids=ascii)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_signed_token_with_an_impossible_name(someone: Someone, method: str, claim: str, value: Any) -> None:
    """`\\ud800` is half a character: JSON can spell it, and nothing can store it."""
    mallory = someone("globex", **{claim: value})
    answer = mallory.service.http.request(method, SESSIONS, headers=mallory.headers)
    refused(answer, 401, "invalid_token")


def test_two_authorization_headers(someone: Someone) -> None:
    alice = someone()
    header = ("authorization", f"Bearer {alice.token}")
    refused(alice.service.http.post(SESSIONS, headers=[header, header]), 401, "invalid_token")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"user": "\\ud800"}', "not JSON"),
        (b'{"user": NaN}', "not JSON"),
        (b"workflow=wf_acme", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'[{"user": "alice"}]', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"user"', "not a JSON object"),
        (b"7", "not a JSON object"),
    ],
)
@pytest.mark.parametrize("path", [SESSIONS, "/v1/logout"])
def test_a_body_that_is_no_json_object(someone: Someone, path: str, body: bytes, said: str) -> None:
    alice = someone()
    answer = alice.service.http.post(path, headers={**alice.headers, **JSON}, content=body)
    assert said in refused(answer, 400, "invalid_request")["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"workflow": {"isValid": True}}, "workflow.isValid"),
        ({"workflow": {"tracing": {"enabled": True, "colour": 1}}}, "workflow.tracing.colour"),
        ({"chatkit_configuration": {"file_upload": {"max": 1}}}, "chatkit_configuration.file_upload.max"),
        ({"user": 7}, "user"),
        ({"user": None}, "user"),
        ({"user": ""}, "user"),
        ({"user": "x" * 513}, "user"),
        ({"workflow": "wf_acme"}, "workflow"),
        ({"workflow": None}, "workflow"),
        ({"workflow": {"id": ["wf_acme"]}}, "workflow.id"),
        ({"workflow": {"version": "latest"}}, "workflow.version"),
        ({"workflow": {"state_variables": {"plan": {"deep": 1}}}}, "workflow.state_variables.plan"),
        ({"workflow": {"state_variables": {"plan": None}}}, "workflow.state_variables.plan"),
        ({"workflow": {"state_variables": []}}, "workflow.state_variables"),
        (
            {"workflow": {"state_variables": {f"v{number}": 1 for number in range(65)}}},
            "workflow.state_variables",
        ),
        ({"workflow": {"tracing": {"enabled": 1}}}, "workflow.tracing.enabled"),
        ({"rate_limits": {"max_requests_per_1_minute": "15"}}, "rate_limits.max_requests_per_1_minute"),
        ({"rate_limits": {"max_requests_per_1_minute": True}}, "rate_limits.max_requests_per_1_minute"),
        ({"rate_limits": {"max_requests_per_1_minute": 1.5}}, "rate_limits.max_requests_per_1_minute"),
        ({"rate_limits": {"max_requests_per_1_minute": 0}}, "rate_limits.max_requests_per_1_minute"),
        ({"rate_limits": {"max_requests_per_1_minute": 10**30}}, "rate_limits.max_requests_per_1_minute"),
        ({"expires_after": 60}, "expires_after"),
        ({"expires_after": {"seconds": 60}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 60}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 601}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 0}}, "expires_after.seconds"),
        (
            {"chatkit_configuration": {"file_upload": {"max_file_size": 513}}},
            "chatkit_configuration.file_upload.max_file_size",
        ),
    ],
)
def test_a_wrong_field_is_named(someone: Someone, upstream: Upstream, body: dict[str, Any], field: str) -> None:
    alice = someone()
    refused(alice.mint(**body), 400, "invalid_request", field=field)
    assert upstream.of(f"acme:{alice.subject}") == []


@pytest.mark.parametrize(("name", "said"), [("x" * 65, "at most 64"), ("", "at least 1")], ids=["long", "empty"])
def test_a_state_variables_impossible_name_is_what_is_wrong(someone: Someone, name: str, said: str) -> None:
    answer = someone().mint(workflow={"state_variables": {name: 1}})
    body = refused(answer, 400, "invalid_request", field=f"workflow.state_variables.{name[:64]}")
    assert said in body["detail"]


@pytest.mark.parametrize(
    ("body", "field"), [({"everywhere": 1}, "everywhere"), ({"all": True}, "all"), ({"everywhere": None}, "everywhere")]
)
def test_a_wrong_field_of_a_logout_is_named_and_nobody_is_logged_out(
    someone: Someone, body: dict[str, Any], field: str
) -> None:
    alice = someone()
    session = alice.minted()
    refused(alice.log_out(**body), 400, "invalid_request", field=field)
    assert alice.live() == [session["id"]]


LIMIT = 64 * 1024


def _padded(size: int) -> bytes:
    return b"{" + b" " * (size - 2) + b"}"


def test_a_body_of_64_kib_is_read(someone: Someone) -> None:
    alice = someone()
    headers = {**alice.headers, **JSON}
    assert alice.service.http.post(SESSIONS, headers=headers, content=_padded(LIMIT)).status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 4 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [SESSIONS, "/v1/logout"])
def test_a_larger_body_is_refused(someone: Someone, path: str, size: int, chunked: bool) -> None:
    alice = someone()

    def chunks() -> Iterator[bytes]:
        whole = _padded(size)
        for start in range(0, size, 8192):
            yield whole[start : start + 8192]

    content = chunks() if chunked else _padded(size)
    answer = alice.service.http.post(path, headers={**alice.headers, **JSON}, content=content)
    assert ("content-length" in answer.request.headers) is not chunked
    refused(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"],
)
@pytest.mark.parametrize("path", [SESSIONS, "/v1/logout"])
def test_a_wrong_content_type(someone: Someone, path: str, content_type: str | None) -> None:
    alice = someone()
    headers = {**alice.headers, **({"content-type": content_type} if content_type else {})}
    refused(alice.service.http.post(path, headers=headers, content=b"{}"), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", SESSIONS, {"GET", "HEAD", "POST"}),
        ("DELETE", SESSIONS, {"GET", "HEAD", "POST"}),
        ("PROPFIND", SESSIONS, {"GET", "HEAD", "POST"}),
        ("GET", f"{SESSIONS}/cksess_1/cancel", {"POST"}),
        ("GET", "/v1/logout", {"POST"}),
    ],
)
def test_a_wrong_method(someone: Someone, method: str, path: str, allowed: set[str]) -> None:
    answer = someone().service.http.request(method, path)
    refused(answer, 405, "method_not_allowed")
    assert {each.strip() for each in answer.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/chatkit/session", f"{SESSIONS}/", f"{SESSIONS}/cksess_1", "/v1/logout/", "/metrics"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path(someone: Someone, method: str, path: str) -> None:
    refused(someone().service.http.request(method, path), 404, "not_found")


def test_who_asks_is_looked_at_before_what_is_asked(someone: Someone) -> None:
    answer = someone().service.http.post(SESSIONS, headers=JSON, content=b"{" * (LIMIT + 1))
    refused(answer, 401, "missing_credentials")
