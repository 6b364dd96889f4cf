"""What is sent to the endpoint and is not a form with one logout token."""

from collections.abc import Callable
from typing import Any

import pytest

from backchannel.parts import ROUTE, Stack, is_in, refused

pytestmark = pytest.mark.process

FORM = {"content-type": "application/x-www-form-urlencoded"}


def body(text: Callable[[str], str], media_type: str = FORM["content-type"]) -> Callable[[str], dict[str, Any]]:
    return lambda token: {"content": text(token).encode(), "headers": {"content-type": media_type}}


REQUESTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "the field twice": body(lambda token: f"logout_token={token}&logout_token={token}"),
    "another field": body(lambda token: f"token={token}"),
    "the field in other letters": body(lambda token: f"Logout_Token={token}"),
    "the field empty": body(lambda _: "logout_token="),
    "the token first, then nothing": body(lambda token: f"logout_token={token}&logout_token="),
    "a field without =": body(lambda token: f"logout_token={token}&x"),
    "too many fields": body(lambda token: f"logout_token={token}" + "&a=1" * 16),
    "no ASCII": body(lambda token: f"logout_token={token}&x=ä"),
    "nothing": body(lambda _: ""),
    "nothing of no kind": lambda _: {},
    "JSON": lambda token: {"json": {"logout_token": token}},
    "JSON called a form": body(lambda token: f'{{"logout_token": "{token}"}}'),
    "a form called text": body(lambda token: f"logout_token={token}", "text/plain"),
    "the bare token": body(lambda token: token, "application/logout+jwt"),
    "parts": lambda token: {"files": {"logout_token": (None, token)}},
    "the query": lambda token: {"params": {"logout_token": token}, "headers": FORM},
    "the header": lambda token: {"headers": {**FORM, "authorization": f"Bearer {token}"}},
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_refused_without_effect(stack: Stack, request_of: Callable[[str], dict[str, Any]]) -> None:
    alice = stack.someone()
    session = alice.minted()
    token = stack.provider.logout_token(alice)
    refused(stack.service.http.post(ROUTE, **request_of(token)))
    assert stack.status(session) == "active"
    is_in(alice)
    assert token not in stack.service.process.text()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_not_read_to_its_end(stack: Stack, chunked: bool) -> None:
    alice = stack.someone()
    text = f"logout_token={stack.provider.logout_token(alice)}&padding=".encode() + b"x" * 65_536
    content: Any = (text[at : at + 8192] for at in range(0, len(text), 8192)) if chunked else text
    refused(stack.service.http.post(ROUTE, content=content, headers=FORM), 413)
    is_in(alice)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_other_methods_are_not_answered(stack: Stack, method: str) -> None:
    alice = stack.someone()
    token = stack.provider.logout_token(alice)
    answer = stack.service.http.request(method, ROUTE, params={"logout_token": token})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["cache-control"] == "no-store"
    is_in(alice)
    assert token not in stack.service.process.text()
