"""Fork a child that shares nothing with its parent but a channel and what it is given."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from service.observe.logs import output, where

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the parent listens to."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Child:
    """A process, and the parent's end of the channel. The end of the stream means that the other one is gone."""

    pid: int
    channel: socket.socket

    def ended(self) -> int | None:
        """Return its exit code, negative where a signal ended it; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def hear(self) -> bytes:
        """Return what the child said; nothing where its end of the channel is closed."""
        try:
            return self.channel.recv(64)
        except ConnectionResetError:  # it died with an order unread
            return b""

    def tell(self, order: bytes, *, last: bool = False) -> None:
        """Send an order, without waiting for who hears none; after the *last*, the stream ends.

        Who is gone can't hear it, and need not.
        """
        try:
            self.channel.send(order, socket.MSG_DONTWAIT)
        except BlockingIOError:
            log.warning("child_hears_nothing", pid=self.pid)
        except OSError:
            log.debug("child_gone", pid=self.pid)
        if last:
            with suppress(OSError):
                self.channel.shutdown(socket.SHUT_WR)


def fork(run: Callable[[socket.socket], int], *, closing: Iterable[socket.socket] = ()) -> Child:
    """Let a child run *run* with its end of the channel, and end with the exit code that it returns.

    *closing* are the parent's own: a child that held the others' channels would keep them from seeing the parent end.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever comes before the child listens by itself must find it: the parent's handlers would swallow it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if not pid:
            _become(run, ours, theirs, closing, before)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Child(pid, ours)


def _become(
    run: Callable[[socket.socket], int],
    ours: socket.socket,
    theirs: socket.socket,
    closing: Iterable[socket.socket],
    mask: Iterable[int],
) -> None:
    """Be the child, to the end of the process: what stands on the stack is the parent's, and none of our business."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the parent passes it on
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each in (ours, *closing):
            each.close()
        code = run(theirs)
    except BaseException as error:  # noqa: BLE001  (the end of the stack)
        log.error("process_failed", error=where(error))
    finally:
        output().close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
