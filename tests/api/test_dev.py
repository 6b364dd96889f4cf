"""`chatkit-mint dev`: what it prints works as it stands, and it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.parts import eventually
from service.http.assets import browser_module
from support.processes import COMMAND, ROOT, Process, clean_environ, free_port

pytestmark = pytest.mark.process

SCRIPT = [str(Path(sys.executable).parent / "chatkit-mint")]
"""What an installed package puts on PATH, and what `make run` starts."""


class Dev(Process):
    """`dev` on free ports, started by *command*."""

    def __init__(self, command: list[str], home: Path) -> None:
        self.output = home / "output"
        self.ports = [free_port() for _ in range(4)]
        options = zip(("--port", "--ops-port", "--idp-port", "--demo-port"), map(str, self.ports), strict=True)
        words = [*command, "dev", *(word for option in options for word in option), "--dir", str(home / "dev")]
        with self.output.open("ab") as sink:
            self.popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=clean_environ(),
                cwd=ROOT,
                start_new_session=True,
            )

    def ready(self) -> "Dev":
        self.wait_for(r"chatkit-mint is ready[^$]*TOKEN=(.*\n)+.*logout.*\n")
        return self

    def printed(self, pattern: str) -> list[str]:
        return re.findall(rf"^  ({pattern}.*)$", self.text(), re.MULTILINE)

    def redis_servers(self) -> list[int]:
        """Its redis-servers, whoever is their parent now: they work in its directory."""
        home = self.output.parent / "dev" / "redis"
        return [int(each.name) for each in Path("/proc").glob("[0-9]*") if _is_redis(each, home)]


def _is_redis(process: Path, home: Path) -> bool:
    try:
        return b"redis-server" in (process / "cmdline").read_bytes() and (process / "cwd").readlink() == home
    except OSError:  # it ended while we looked
        return False


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(command: list[str] = SCRIPT, home: Path = tmp_path) -> Dev:
        home.mkdir(exist_ok=True)
        started.append(Dev(command, home))
        return started[-1]

    yield start
    for each in started:
        each.stop(signal.SIGKILL)
        for left_behind in each.redis_servers():
            os.kill(left_behind, signal.SIGKILL)


def documents(text: str) -> list[Any]:
    """The JSON documents of the text, one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def in_a_shell(lines: list[str]) -> str:
    """Type the lines into a shell; return what it prints."""
    shell = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=clean_environ(),
        cwd=ROOT,
        timeout=90,
        check=False,
    )
    assert (shell.returncode, shell.stderr) == (0, "")
    return shell.stdout


@pytest.mark.timeout(120)
def test_the_printed_lines_mint_and_log_out(dev: Callable[..., Dev]) -> None:
    running = dev().ready()
    lines = [
        *running.printed("TOKEN="),
        *running.printed("curl "),
        *running.printed("export "),
        *running.printed(".*--url"),
    ]
    assert len(lines) >= 7
    answers, _, told = in_a_shell(lines).partition("alice of acme")
    session, report = documents(answers)
    assert "no live session" in told
    assert "Done: all ended" in told
    assert "acme can mint again" in told
    assert (session["object"], session["status"]) == ("chatkit.session", "active")
    assert session["client_secret"].startswith("ek_")
    assert report == {"cancelled": 1, "pending": 0}


@pytest.mark.timeout(120)
def test_started_as_a_module_it_prints_commands_of_the_module(dev: Callable[..., Dev]) -> None:
    running = dev(COMMAND).ready()
    [token], [mint, _] = running.printed("TOKEN="), running.printed("curl ")
    module = token.removeprefix("TOKEN=$(").partition(" token ")[0]
    assert module.endswith(" -m service")
    assert json.loads(in_a_shell([token, mint]))["status"] == "active"
    operating = running.printed(".*--url")
    assert [line.removeprefix(module).split()[0] for line in operating] == ["sessions", "revoke", "unblock"]


def test_the_printed_addresses_answer(dev: Callable[..., Dev]) -> None:
    running = dev().ready()
    addresses = re.findall(r"http://127\.0\.0\.1:(\d+)(\S*)", running.text())
    assert {int(port) for port, _ in addresses} == set(running.ports)
    assert f'integrity="{browser_module().integrity}"' in running.text()
    port, operations, provider, demo = running.ports
    for url, status in (
        (f"http://127.0.0.1:{demo}/", "200"),
        (f"http://127.0.0.1:{port}/v1/chatkit/sessions", "401"),
        (f"http://127.0.0.1:{port}/v1/client.js", "200"),
        (f"http://127.0.0.1:{operations}/readyz", "200"),
        (f"http://127.0.0.1:{operations}/metrics", "200"),
        (f"http://127.0.0.1:{provider}/.well-known/openid-configuration", "200"),
    ):
        asked = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url]
        assert subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_redis(dev: Callable[..., Dev], number: int) -> None:
    running = dev().ready()
    assert len(running.redis_servers()) == 1
    assert running.stop(number) == 0
    assert running.redis_servers() == []
    assert "Traceback" not in running.text()


def test_a_second_of_it_on_the_same_directory_is_refused_and_one_after_it_is_not(
    dev: Callable[..., Dev], tmp_path: Path
) -> None:
    first = dev().ready()
    second = dev()
    assert second.popen.wait(timeout=30) == 1
    assert "stop it" in second.text()
    assert first.popen.poll() is None
    assert tmp_path.exists()


def test_being_killed_leaves_no_redis_behind(dev: Callable[..., Dev]) -> None:
    running = dev().ready()
    assert len(running.redis_servers()) == 1
    running.stop(signal.SIGKILL)
    eventually(lambda: not running.redis_servers())
    again = dev()
    again.ready()
