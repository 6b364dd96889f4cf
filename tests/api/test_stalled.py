"""Whoever reads the log may stop, and the audit file's disk may be full: requests go on, and losses are counted."""

import fcntl
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import API_KEYS, Caller, Service
from support.processes import COMMAND, ROOT, clean_environ

pytestmark = pytest.mark.process

F_SETPIPE_SZ = 1031
REQUESTS = 2000
LONG = "\N{SLIGHTLY SMILING FACE}" * 240
"""A name as long as may be, which the audit stream tells: so 4 MiB are soon full."""


class Stalled(Service):
    """A service whose output is a pipe, of which the first lines are read."""

    def __init__(self, environ: dict[str, str]) -> None:
        reading, writing = os.pipe()
        fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
        self.popen = subprocess.Popen(
            [*COMMAND, "serve"], stdout=writing, stderr=subprocess.STDOUT, env=environ, cwd=ROOT, start_new_session=True
        )
        os.close(writing)
        self.output = os.fdopen(reading, "rb")
        told = next(line for line in map(json.loads, self.output) if line.get("event") == "listening")
        self.url, self.operations = told["public"], told["operations"]
        self.http = httpx2.Client(base_url=self.url, timeout=30.0, trust_env=False)

    def close(self) -> None:
        self.http.close()
        self.popen.terminate()
        try:
            self.popen.wait(timeout=20)
        finally:
            self.popen.kill()
            self.output.close()


@pytest.fixture
def stalled(config: Path, redis_server: RedisServer) -> Iterator[Stalled]:
    environ = {"CHATKIT_MINT_CONFIG_DIR": str(config), "CHATKIT_MINT_REDIS_URL": redis_server.url(SERVICE_DB)}
    environ |= {"CHATKIT_MINT_PORT": "0", "CHATKIT_MINT_OPS_PORT": "0", **API_KEYS}
    service = Stalled(clean_environ(**environ))
    yield service
    service.close()


def test_a_log_that_nobody_reads_holds_up_no_request(stalled: Stalled, issuer: Issuer) -> None:
    def ask(number: int) -> tuple[int, float]:
        caller = Caller(stalled, issuer, "acme", f"{number}{LONG}", login=f"{number}{LONG}")
        started = time.monotonic()
        answer = caller.mint() if number % 10 == 0 else caller.mint(colour="red")
        return answer.status_code, time.monotonic() - started

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(REQUESTS)))
    assert [status for status, _ in answers] == [200 if number % 10 == 0 else 400 for number in range(REQUESTS)]
    assert max(took for _, took in answers) < 5.0
    lost = stalled.counted("log_lines_dropped", stream="log")
    assert lost > 100
    told: list[int] = []

    def read() -> None:
        lines = map(json.loads, stalled.output)
        told.extend(line["lines"] for line in lines if line["event"] == "log_lines_dropped")

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    eventually(lambda: sum(told) == lost)
    after = Caller(stalled, issuer, "acme", "stalled-after").mint()
    assert after.status_code == 200
    assert stalled.counted("log_lines_dropped", stream="log") == lost


def test_a_log_that_nobody_reads_holds_up_no_end(stalled: Stalled, issuer: Issuer) -> None:
    for number in range(20):
        assert Caller(stalled, issuer, "acme", f"ending-{number}").mint(colour="red").status_code == 400
    started = time.monotonic()
    stalled.popen.terminate()
    assert stalled.popen.wait(timeout=20) == 0
    assert time.monotonic() - started < 10.0


def test_a_full_disk_for_the_audit_stream_holds_up_no_request(
    config: Path, redis_server: RedisServer, issuer: Issuer, tmp_path: Path
) -> None:
    url = redis_server.url(SERVICE_DB)
    service = Service(tmp_path / "log", config, url, CHATKIT_MINT_AUDIT_FILE="/dev/full")
    try:
        service.wait()
        for number in range(100):
            assert Caller(service, issuer, "acme", f"full-{number}").mint().status_code == 200
        eventually(lambda: service.counted("log_lines_dropped", stream="audit") == 101)  # and the start's
        assert service.counted("log_lines_dropped", stream="log") == 0
        troubles = [line for line in service.lines() if line["event"] == "audit_file_trouble"]
        assert [line["error"] for line in troubles] == ["ENOSPC"]
    finally:
        service.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_line_is_lost_at_the_end(
    config: Path, redis_server: RedisServer, issuer: Issuer, tmp_path: Path, workers: str
) -> None:
    audit, url = tmp_path / "audit", redis_server.url(SERVICE_DB)
    settings = {"CHATKIT_MINT_AUDIT_FILE": str(audit), "CHATKIT_MINT_WORKERS": workers}
    service = Service(tmp_path / "log", config, url, **settings)
    try:
        service.wait()
        minted = [Caller(service, issuer, "acme", f"end-{number}").minted()["id"] for number in range(30)]
    finally:
        service.close()
    told = [json.loads(line) for line in audit.read_text().splitlines()]
    assert {line["session"] for line in told if line["event"] == "mint"} == set(minted)
