"""Several processes on the same sockets: counted as one, replaced when they die, ended together."""

import os
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx2
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from api.parts import SERVICE_DB, eventually, stopped_exit
from api.stack import Caller, Service
from lifecycle.conftest import Start, Surroundings
from support.house import House, alive, children, descendants
from support.processes import Process, clean_environ

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

TWO = {"CHATKIT_MINT_WORKERS": "2"}


def mint_apart(house: House, around: Surroundings, count: int) -> None:
    """Mint on a connection of its own each."""
    for number in range(count):
        token = around.issuer.token("acme", f"apart-{number}", sid=f"sid-{time.monotonic_ns()}")
        answer = httpx2.post(
            f"{house.service.url}/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}"}, trust_env=False
        )
        assert answer.status_code == 200, answer.text


def minted(house: House) -> float:
    return house.service.counted("mints", tenant="acme", outcome="minted")


def gauge(house: House) -> str:
    lines = house.service.ops("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("chatkit_mint_requests_in_flight "))


def test_every_request_is_counted_once_whoever_answers(start: Start, around: Surroundings) -> None:
    house = start(**TWO)
    mint_apart(house, around, 40)
    each = [house.counted_by(place, "chatkit_mint_mints_total") for place in (0, 1)]
    assert sum(each) == 40
    assert all(each), "both took their part"
    assert {minted(house) for _ in range(20)} == {40.0}, "whichever worker is asked"
    answer = house.service.ops("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert list(openmetrics.text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]


def test_no_counter_goes_back_when_a_worker_is_killed(start: Start, around: Surroundings) -> None:
    house, before = start(**TWO), 0.0
    stuck = Caller(house.service, around.issuer, "stuck", "cut-off")
    for round_ in (1, 2):
        mint_apart(house, around, 10)
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(stuck.mint)
            eventually(lambda: gauge(house).endswith(" 2.0"))
            workers = house.workers()
            for place in sorted(workers, key=house.under_way_at, reverse=True):  # the one that has it, then the other
                house.kill(workers[place], signal.SIGKILL)
                assert minted(house) >= before
                before = minted(house)
            with pytest.raises(httpx2.HTTPError):
                cut.result()
        assert minted(house) == 10.0 * round_
        # The scrape itself, and nothing that died.
        assert gauge(house).endswith(" 1.0")
    assert house.service.counted("worker_restarts", how="killed") == 4
    assert len(list(house.family.glob("*.db"))) == 12, "four each for two workers and the parent"
    assert {line["signal"] for line in house.told("worker_ended")} == {"SIGKILL"}


def test_a_lost_directory_of_metrics_takes_nobody_along(start: Start, around: Surroundings) -> None:
    house = start(**TWO)
    shutil.rmtree(house.family)
    first, second = (house.workers()[place] for place in (0, 1))
    house.kill(first, signal.SIGKILL, wait=False)
    eventually(lambda: house.told("metrics_not_begun_anew"))
    mint_apart(house, around, 3)
    assert house.workers()[1] == second


def test_who_dies_again_and_again_is_replaced_ever_more_slowly(start: Start) -> None:
    house = start(**TWO)
    place, worker = 0, house.workers()[0]
    for _ in range(3):
        os.kill(worker, signal.SIGKILL)
        worker = house.next_after(place, worker)
    began = [line for line in house.told("worker_started") if line["place"] == place]
    ended = house.told("worker_ended")
    at_once, soon, later = (_seconds(after, before) for before, after in zip(ended, began[1:], strict=True))
    assert at_once < 0.9 < soon < 1.9 < later < 4
    assert house.workers().keys() == {0, 1}


def _seconds(later: dict[str, str], sooner: dict[str, str]) -> float:
    return (datetime.fromisoformat(later["timestamp"]) - datetime.fromisoformat(sooner["timestamp"])).total_seconds()


@pytest.mark.parametrize("group", [False, True], ids=["the parent alone", "all, as Ctrl-C does"])
def test_all_end_with_the_parent_and_what_is_under_way_is_answered(
    start: Start, around: Surroundings, group: bool
) -> None:
    house = start(**TWO)
    everybody = [house.parent, *descendants(house.parent)]
    callers = [Caller(house.service, around.issuer, "slow", f"last-{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        minting = [pool.submit(caller.minted) for caller in callers]
        eventually(lambda: around.redis.leases("slow") == 6)
        for _ in range(3):  # once more changes nothing
            if group:
                os.killpg(house.parent, signal.SIGINT)
            else:
                os.kill(house.parent, signal.SIGTERM)
            time.sleep(0.2)
        assert len({each.result()["id"] for each in minting}) == 6
    assert house.service.process.popen.wait(timeout=30) == 0
    assert not any(alive(pid) for pid in everybody)
    assert all("error" not in line for line in house.service.lines())
    with pytest.raises(StopIteration):
        _ = house.family


def test_the_workers_end_when_the_parent_is_killed(start: Start, around: Surroundings) -> None:
    house = start(**TWO)
    workers = descendants(house.parent)
    slow = Caller(house.service, around.issuer, "slow", "orphan")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(slow.minted)
        eventually(lambda: around.redis.leases("slow"))
        os.kill(house.parent, signal.SIGKILL)
        assert minting.result()["id"]
    eventually(lambda: not any(alive(pid) for pid in workers))


def test_no_worker_waits_for_another_to_see_that_the_parent_is_gone(start: Start) -> None:
    house = start(**TWO)
    first, second = (house.workers()[place] for place in (0, 1))
    os.kill(second, signal.SIGSTOP)
    os.kill(house.parent, signal.SIGKILL)
    eventually(lambda: not alive(first))
    os.kill(second, signal.SIGCONT)
    eventually(lambda: not alive(second))


def test_a_worker_that_ends_alone_finishes_first_and_the_service_is_ready_all_the_while(
    start: Start, around: Surroundings
) -> None:
    house = start(**TWO)
    slow = Caller(house.service, around.issuer, "slow", "alone")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(slow.minted)
        eventually(lambda: around.redis.leases("slow") == 1)
        workers = house.workers()
        place = max(workers, key=house.under_way_at)
        os.kill(workers[place], signal.SIGTERM)
        said = set()
        while not minting.done():
            said.add(house.service.ops("/readyz").status_code)
        assert minting.result()["id"]
    assert said == {200}
    house.next_after(place, workers[place])
    assert [line["exit_code"] for line in house.told("worker_ended")] == [0]


def test_a_hangup_reloads_every_worker(start: Start) -> None:
    house = start(**TWO)
    assert house.service.counted("policy_loads", outcome="ok") == 2
    os.kill(house.parent, signal.SIGHUP)
    eventually(lambda: house.service.counted("policy_loads", outcome="ok") == 4)
    eventually(lambda: len(house.told("policies_unchanged")) == 2)


def test_a_hangup_while_it_starts_ends_nothing(around: Surroundings, tmp_path: Path) -> None:
    """systemd takes an end by SIGHUP for one that was asked for, and would not start it again."""
    service = Service(tmp_path / "log", around.config, around.redis.url(SERVICE_DB))
    try:
        ignored = Path(f"/proc/{service.process.popen.pid}/status")
        eventually(lambda: int(ignored.read_text().partition("SigIgn:")[2].split()[0], 16) & 1 << signal.SIGHUP - 1)
        service.process.popen.send_signal(signal.SIGHUP)
        assert service.wait().ops("/livez").status_code == 200
    finally:
        service.close()


def test_a_worker_that_dies_with_an_order_unread_is_replaced(start: Start) -> None:
    house = start(**TWO)
    worker = house.workers()[1]
    os.kill(worker, signal.SIGSTOP)
    os.kill(house.parent, signal.SIGHUP)
    eventually(lambda: house.told("policies_unchanged"))
    house.kill(worker, signal.SIGKILL)
    assert house.service.ops("/livez").status_code == 200
    assert house.service.process.stop() == 0


def test_a_worker_that_hears_nothing_holds_up_neither_reloads_nor_the_end(tmp_path: Path) -> None:
    """The supervisor alone: one worker listens, the other never does."""
    script = """
import signal, sys, time
from service.workers.supervise import Supervisor

def run(place, channel):
    channel.sendall(b"r")
    if place:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    while (heard := channel.recv(4096)) and b"e" not in heard:
        pass
    print("one has ended", flush=True)
    return 0

supervisor = Supervisor(run, count=2, listening=[], patience=1.0, replaced=lambda *_: None)
sys.exit(0 if supervisor.run(lambda: print("all are ready", flush=True)) else 1)
"""
    command = [sys.executable, "-c", script]
    process = Process(output=tmp_path / "log", environ=clean_environ(), command=command)
    process.wait_for("all are ready")
    for _ in range(2000):
        process.popen.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    assert process.stop() == 1
    assert "one has ended" in process.text()


def test_the_parent_leaves_no_zombie_and_has_no_thread(start: Start) -> None:
    house = start(**TWO)
    for worker in list(house.workers().values()):
        house.kill(worker, signal.SIGKILL)
    assert set(children(house.parent)) == set(house.workers().values())
    # Nor has it a thread, which a fork would leave behind with whatever it held.
    assert os.listdir(f"/proc/{house.parent}/task") == [str(house.parent)]  # noqa: PTH208  (names, not paths)


@pytest.fixture
def with_own_redis(start: Start, tmp_path: Path) -> House:
    return start(**TWO, CHATKIT_MINT_REDIS_URL="", CHATKIT_MINT_REDIS_DIR=str(tmp_path / "redis"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_private_redis_is_there_until_the_last_worker_has_ended(
    with_own_redis: House, around: Surroundings, number: int
) -> None:
    house = with_own_redis
    everybody = descendants(house.parent)
    assert len(everybody) == 4, "two workers, the redis-server, and who looks after it"
    slow = Caller(house.service, around.issuer, "slow", "own-redis")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(slow.minted)
        time.sleep(0.5)
        os.kill(house.parent, number)
        assert minting.result()["id"]
    assert house.service.process.popen.wait(timeout=30) == (0 if number == signal.SIGTERM else -number)
    eventually(lambda: not any(alive(pid) for pid in everybody))
    assert not house.told("private_redis_ended")


def test_who_looks_after_the_private_redis_keeps_no_port_open(with_own_redis: House, around: Surroundings) -> None:
    house = with_own_redis
    where = httpx2.URL(house.service.url)
    slow = Caller(house.service, around.issuer, "slow", "port")
    with ThreadPoolExecutor(1) as pool:
        minting = pool.submit(slow.minted)
        time.sleep(0.3)
        os.kill(house.parent, signal.SIGTERM)
        time.sleep(0.6)
        assert not minting.done(), "Redis is still needed"
        with pytest.raises(ConnectionRefusedError):  # else who comes now waits for an answer that nobody gives
            socket.create_connection((where.host, where.port), timeout=2).close()
        assert minting.result()["id"]


def test_without_its_redis_the_service_ends(with_own_redis: House) -> None:
    house = with_own_redis
    keeper = (set(children(house.parent)) - set(house.workers().values())).pop()
    os.kill(keeper, signal.SIGKILL)
    assert house.service.process.popen.wait(timeout=30) == 1
    assert house.told("private_redis_lost")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CHATKIT_MINT_CONFIG_DIR": "nowhere"}, "nowhere"),
        ({"CHATKIT_MINT_OPS_PORT": "taken"}, "choose another with CHATKIT_MINT_OPS_PORT"),
        ({"CHATKIT_MINT_REDIS_URL": "", "CHATKIT_MINT_REDIS_DIR": "/proc/redis"}, "set CHATKIT_MINT_REDIS_DIR"),
    ],
)
def test_what_keeps_it_from_starting_is_told_once(
    around: Surroundings, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = {name: str(taken.getsockname()[1]) if value == "taken" else value for name, value in settings.items()}
        service = Service(tmp_path / "log", around.config, around.redis.url(SERVICE_DB), **TWO, **given)
        assert stopped_exit(service.process) == 1
    assert service.process.text().count(said) == 1
    assert "Traceback" not in service.process.text()
    assert "worker_started" not in service.process.text()


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """The supervisor alone, with little patience."""
    script = """
import signal, sys, time
from service.workers.supervise import Supervisor

def deaf(place, channel):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.sendall(b"r")
    time.sleep(60)
    return 0

supervisor = Supervisor(deaf, count=2, listening=[], patience=0.5, replaced=lambda *_: None)
sys.exit(0 if supervisor.run(lambda: print("all are ready", flush=True)) else 1)
"""
    command = [sys.executable, "-c", script]
    process = Process(output=tmp_path / "log", environ=clean_environ(), command=command)
    process.wait_for("all are ready")
    workers = children(process.popen.pid)
    began = time.monotonic()
    assert process.stop() == 1
    assert 0.5 < time.monotonic() - began < 5
    assert len(workers) == 2
    assert not any(alive(pid) for pid in workers)


def test_one_that_never_gets_ready_ends_the_service(tmp_path: Path) -> None:
    script = """
from service.workers.supervise import Supervisor

def run(place, channel):
    if place:
        raise ValueError("sk-secret")
    channel.sendall(b"r")
    return 0 if channel.recv(1) == b"e" else 2

Supervisor(run, count=3, listening=[], patience=5, replaced=lambda *_: None).run(lambda: print("ready"))
"""
    process = Process(output=tmp_path / "log", environ=clean_environ(), command=[sys.executable, "-c", script])
    assert stopped_exit(process) == 1
    assert "the service did not start" in process.text()
    assert "process_failed" in process.text()
    assert "sk-secret" not in process.text()
