"""The parent of the workers: forks them, replaces those that die, passes on what it is told, and ends them.

It has no event loop and no thread: a fork copies the thread that calls it alone, and locks that others hold for ever.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from service.serve import END, READY, RELOAD
from service.workers.fork import SIGNALS, Child, fork

YOUNG: Final = 10.0
"""Seconds: who ends sooner may do so again at once."""
SOONEST, LATEST = 1.0, 30.0
"""Seconds before one is replaced, from the second in a row on that ended young; doubled each time."""
LOOK: Final = 1.0
"""Seconds between looks where nothing happens."""

log = structlog.get_logger()

Run = Callable[[int, socket.socket], int]
"""What a worker does: its place and its channel in, its exit code out."""


@dataclass(slots=True)
class Place:
    """Where one worker after the other runs."""

    number: int
    worker: Child | None = None
    since: float = 0.0
    ready: bool = False
    heard: bool = False
    """Whether its channel has come to its end."""
    young: int = 0
    """How many in a row ended young."""
    next_at: float = 0.0


class Supervisor:
    """Keeps *count* workers running until it is told to stop.

    *listening* are the sockets that they inherit; *vital* is a child without whom nothing works. *patience* is how long
    they have to end, in seconds, before they are killed. *replaced* hears of each that ended: its place, and how.
    """

    def __init__(
        self,
        run: Run,
        *,
        count: int,
        listening: Sequence[socket.socket],
        patience: float,
        replaced: Callable[[int, str], None],
        vital: Child | None = None,
    ) -> None:
        self._run = run
        self._places = [Place(number) for number in range(count)]
        self._listening = listening
        self._patience = patience
        self._replaced = replaced
        self._vital = vital
        self._serving = False
        self._failed = False
        self._kill_at: float | None = None
        """When those that still run are killed; None until they were told to end."""

    def run(self, ready: Callable[[], None]) -> bool:
        """Run until all have ended; return whether that went well. *ready* is called once all serve.

        Raises `RuntimeError` where they don't start.
        """
        try:
            with _signals() as waking:
                while self._kill_at is None or self._alive():
                    self._turn(waking, ready)
        finally:
            for _, worker in self._alive():
                worker.channel.close()  # whatever went wrong here, they end
        if not self._serving and self._failed:
            raise RuntimeError("the service did not start; the log says why")
        return not self._failed

    def _turn(self, waking: int, ready: Callable[[], None]) -> None:
        self._fill()
        self._listen(waking)
        self._reap()
        if not self._serving and all(place.ready for place in self._places):
            self._serving = True
            ready()
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._kill()

    def _alive(self) -> list[tuple[Place, Child]]:
        return [(place, place.worker) for place in self._places if place.worker]

    def _fill(self) -> None:
        if self._kill_at is not None:
            return
        now = time.monotonic()
        for place in self._places:
            if place.worker is None and now >= place.next_at:
                self._start(place)

    def _start(self, place: Place) -> None:
        others = [worker.channel for _, worker in self._alive()]
        if self._vital:
            others.append(self._vital.channel)
        try:
            place.worker = fork(lambda channel: self._run(place.number, channel), closing=others)
        except OSError as error:
            log.error("worker_not_started", place=place.number, reason=error.strerror)
            place.next_at = time.monotonic() + LATEST
            return
        place.since, place.ready, place.heard = time.monotonic(), False, False
        log.info("worker_started", place=place.number, pid=place.worker.pid)

    def _listen(self, waking: int) -> None:
        """Wait for something to happen; do what a signal asks for, and hear what children say."""
        channels = {worker.channel: (place, worker) for place, worker in self._alive() if not place.heard}
        watched: list[int | socket.socket] = [waking, *channels]
        if self._vital and not self._failed:
            watched.append(self._vital.channel)
        found, _, _ = select.select(watched, [], [], self._wait())
        for channel in found:
            if channel in channels:
                place, worker = channels[channel]
                told = worker.hear()
                place.ready = place.ready or READY in told
                place.heard = not told
            elif channel != waking:
                log.error("private_redis_lost")
                self._failed = True
                self._end()
        numbers = os.read(waking, 1024) if waking in found else b""
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._end()
        if signal.SIGHUP in numbers:
            for _, worker in self._alive():
                worker.tell(RELOAD)

    def _wait(self) -> float:
        times = [place.next_at for place in self._places if place.worker is None]
        if self._kill_at is not None:
            times = [self._kill_at]
        return max(0.0, min([LOOK, *(at - time.monotonic() for at in times)]))

    def _reap(self) -> None:
        for place, worker in self._alive():
            if (code := worker.ended()) is not None:
                worker.channel.close()
                place.worker = None
                self._gone(place, worker, code)

    def _gone(self, place: Place, worker: Child, code: int) -> None:
        lived = time.monotonic() - place.since
        ended = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
        tell = log.error if code else log.info
        tell("worker_ended", place=place.number, pid=worker.pid, seconds=round(lived, 1), **ended)
        if self._kill_at is not None:
            return
        if not self._serving:
            self._failed = True
            self._end()
            return
        self._replaced(place.number, "killed" if code < 0 else "failed" if code else "asked")
        place.young = place.young + 1 if code and lived < YOUNG else 0
        place.next_at = time.monotonic() + _backoff(place.young)

    def _end(self) -> None:
        """Tell all to end. A second time changes nothing."""
        if self._kill_at is not None:
            return
        self._kill_at = time.monotonic() + self._patience
        log.info("stopping_workers", patience=self._patience)
        for sock in self._listening:
            sock.close()  # once the last worker has stopped accepting, callers must be refused, not left to wait
        for _, worker in self._alive():
            worker.tell(END, last=True)  # which one that is stuck, and so has no room for an order, finds too

    def _kill(self) -> None:
        self._failed = True
        self._kill_at = time.monotonic() + self._patience
        for place, worker in self._alive():
            log.error("worker_killed", place=place.number, pid=worker.pid, patience=self._patience)
            os.kill(worker.pid, signal.SIGKILL)


def _backoff(young: int) -> float:
    return min(LATEST, SOONEST * 2.0 ** min(young - 2, 16)) if young > 1 else 0.0


@contextmanager
def _signals() -> Iterator[int]:
    """Give a file descriptor that can be read when a signal has come: one byte each, its number."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, _noted) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the number is in the pipe."""
