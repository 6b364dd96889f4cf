"""What the review found at the edges: the command, the settings, two keys. Each fails on f07246f."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.cli import remote
from service.settings import Settings, SettingsError, load_settings

KEY = "an-admin-key-of-thirty-two-characters"
LOST: dict[str, object] = {"tenant": "acme", "blocked_since": None, "users_remaining": 0, "state": None}
BEGUN: dict[str, object] = {
    "tenant": "acme",
    "blocked_since": 1.0,
    "users_remaining": 1,
    "state": "cancelling",
    "rate": 100.0,
    "sessions": 2,
    "cancelled": 0,
    "failed": 0,
    "remaining": 2,
}


class Operations(BaseHTTPRequestHandler):
    """What a service answers whose Redis comes back empty while the command waits."""

    answers: list[tuple[int, dict[str, object]]]

    def _answer(self) -> None:
        answers = type(self).answers
        status, told = answers.pop(0) if len(answers) > 1 else answers[0]
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Operations)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Looks(Exception):  # noqa: N818
    pass


def looking(most: int) -> Callable[[float], None]:
    left = [most]

    def sleep(_seconds: float) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Looks("it waits for ever")

    return sleep


def settings() -> Settings:
    return load_settings({"CHATKIT_MINT_ADMIN_KEY": KEY})


@pytest.mark.parametrize("as_json", [False, True])
def test_a_revocation_that_redis_forgot_is_told_and_not_waited_for(url: str, as_json: bool) -> None:
    Operations.answers = [(202, BEGUN), (200, LOST)]
    with pytest.raises(remote.Failed, match="revoke --tenant acme"):
        remote.revoke(settings(), url, "acme", None, wait=True, as_json=as_json, sleep=looking(20))


def test_a_look_that_fails_ends_no_wait(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    Operations.answers = [
        (202, BEGUN),
        (503, {"code": "store_unavailable", "detail": "Sessions can't be recorded right now"}),
        (200, {**BEGUN, "state": "done", "cancelled": 2, "remaining": 0}),
    ]
    remote.revoke(settings(), url, "acme", None, wait=True, as_json=False, sleep=looking(20))
    assert "Done" in capsys.readouterr().out


def test_ended_by_themselves_is_not_told_as_cancelled_only(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`Done` names what could not be cancelled, so that nobody overlooks it."""
    Operations.answers = [(202, {**BEGUN, "state": "done", "cancelled": 0, "failed": 2, "remaining": 0})]
    remote.revoke(settings(), url, "acme", None, wait=True, as_json=False, sleep=looking(1))
    assert "2 ended by themselves" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [10.0, 60.0])
def test_redis_may_not_take_longer_than_a_user_is_listed_ahead(seconds: float) -> None:
    """A user listed, then queued for 10 s or more later, has been taken off the list meanwhile."""
    with pytest.raises(SettingsError):
        load_settings({"CHATKIT_MINT_REDIS_TIMEOUT": str(seconds)})
