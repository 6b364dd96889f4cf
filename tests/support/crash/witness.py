"""What Redis itself was told, read from MONITOR: a witness that shares no code and no memory with the service.

MONITOR shows each script's call with its arguments, and right after it the commands that the script runs, those marked
`lua`. So a session id in the arguments of a call that ran means that upstream's answer had arrived, and a `lua` SET or
HSET of it that it was recorded. A call that nothing follows did not run: Redis had not been given that script yet.
"""

import re
import secrets
import socket
import threading
from collections import defaultdict
from typing import Final

from redis import Redis

SESSION: Final = re.compile(rb"cksess_[0-9a-f]{48}")
COMMAND: Final = re.compile(rb'\+[\d.]+ \[(\d+) (\S+)\] "(\w+)" "((?:[^"\\]|\\.)*)"')
REASON: Final = re.compile(rb'"\d+\|(\w+)\|')
AUTHORITY: Final = b'"cm:authority:'
"""Leads the keys of sessions' issuer, which the service has in its own Redis where it is its own upstream."""
STORED: Final = {(b"SET", b"live"), (b"HSET", b"queue")}
SEEN_WITHIN: Final = 60.0
"""Seconds in which MONITOR tells all that it has; it is a thread of a busy process."""


class Witness:
    """Session ids as the databases of one redis-server met them, from its start to `close`."""

    def __init__(self, redis: Redis, path: str, *, service_db: int, authority_db: int) -> None:
        self._redis = redis
        self._known = {b"%d" % service_db, b"%d" % authority_db}
        self.created: set[str] = set()
        """Stored by the authority."""
        self.told: set[str] = set()
        """In any command of the service's that ran: it knew the id while it lived."""
        self.recorded: set[str] = set()
        """Stored by the service as live, or as still to be cancelled."""
        self.reasons: defaultdict[str, set[str]] = defaultdict(set)
        """Why each was queued to be cancelled."""
        self._called: set[str] = set()
        """In the arguments of the call just seen."""
        self._whole = False
        self._end = secrets.token_hex(8).encode()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until everything up to now has been seen, and stop watching."""
        self._redis.echo(self._end)
        self._thread.join(SEEN_WITHIN)
        assert self._whole, "MONITOR lags behind, or ended before the test did"
        self._lines.close()
        self._socket.close()

    def _watch(self) -> None:
        for line in self._lines:
            if self._called:
                if b" lua] " in line:
                    self.told |= self._called
                self._called = set()
            if b"cksess_" in line:
                self._see(line)
            elif self._end in line:
                self._whole = True
                return

    def _see(self, line: bytes) -> None:
        found = COMMAND.match(line)
        assert found, line
        db, client, command, key = found.groups()
        ids = {each.decode() for each in SESSION.findall(line)}
        assert db in self._known, line
        if AUTHORITY in line:
            if command == b"HSET" and client == b"lua":
                self.created |= ids
            return
        if command in (b"EVALSHA", b"EVAL"):
            self._called = ids
            return
        self.told |= ids
        if client == b"lua" and (command, key.rpartition(b":")[2]) in STORED:
            self.recorded |= ids
            if key.endswith(b":queue") and (reason := REASON.search(line)):
                for each in ids:
                    self.reasons[each].add(reason[1].decode())
