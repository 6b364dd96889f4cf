"""Live reload: the whole directory, all of it valid or none of it applied; the last good one stays.

A request asks for the policies once and keeps them to its end, so replacing them is one assignment.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from service.identity.keys import KeyCache
from service.observe.metrics import Metrics
from service.policy.compile import Defaults
from service.policy.load import PolicyError, load_policies
from service.policy.tenant import Policies
from service.session import Account

LOOK: Final = 1.0
"""Seconds between looks at the directory."""
REMEMBER: Final = 700.0
"""Seconds that an account stays known after its tenant moved or went: longer than any session lives."""

log = structlog.get_logger()

Signature = tuple[tuple[str, int, int, int], ...]


class PolicyStore:
    """The policies in force, and what replaces them. *clock* gives Unix seconds."""

    def __init__(self, directory: Path, defaults: Defaults, metrics: Metrics, *, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._defaults = defaults
        self._metrics = metrics
        self._clock = clock
        self._signature = signature(directory)
        self.current = load_policies(directory, defaults)
        self.failure: str | None = None
        """Why the files as they stand now are not in force; None where they are."""
        self._accounts: dict[tuple[str, str], tuple[Account, float]] = {}
        self._remember(self.current)
        self._loaded("ok")

    def account_at(self, tenant: str, place: str) -> Account | None:
        """Return a tenant's account where a session was issued, also if the tenant has moved since."""
        known = self._accounts.get((tenant, place))
        return known[0] if known else None

    def reload(self) -> bool:
        """Load the directory and put it in force; return whether it was fit to be. Blocks: call it in a thread."""
        try:
            policies = load_policies(self._directory, self._defaults)
        except (PolicyError, OSError) as error:
            self.failure = str(error)
            mistakes = [str(each) for each in error.mistakes] if isinstance(error, PolicyError) else [str(error)]
            log.error("policies_not_reloaded", mistakes=mistakes[:20], count=len(mistakes), kept=self.current.version)
            self._loaded("failed")
            return False
        self.failure = None
        changed = policies.version != self.current.version
        self._remember(self.current)  # until now, sessions were issued there
        self._remember(policies)
        self.current = policies
        if changed:
            log.info("policies_reloaded", version=policies.version, tenants=len(policies.tenants))
        self._loaded("ok")
        return True

    async def watch(self, keys: KeyCache, asked: asyncio.Event) -> None:
        """Reload for ever: whenever a file changes, and at once when *asked* is set."""
        wait = LOOK
        while True:
            try:
                async with asyncio.timeout(wait):
                    await asked.wait()
            except TimeoutError:
                pass
            started = time.perf_counter()
            seen = await asyncio.to_thread(signature, self._directory)
            # A directory of many thousand files is looked at less often: at most a twentieth of a core.
            wait = max(LOOK, 20 * (time.perf_counter() - started))
            if seen == self._signature and not asked.is_set():
                continue
            asked.clear()
            # What is seen is noted before it is read: a change while reading is seen again at the next look.
            self._signature = seen
            if await asyncio.to_thread(self.reload):
                await keys.warm(self.current.key_sources)

    def _remember(self, policies: Policies) -> None:
        now = self._clock()
        kept = {name: known for name, known in self._accounts.items() if now - known[1] < REMEMBER}
        fresh = {(each.name, each.account.place): (each.account, now) for each in policies.tenants.values()}
        self._accounts = {**kept, **fresh}

    def _loaded(self, outcome: str) -> None:
        self._metrics.policy_loads.labels(outcome).inc()


def signature(directory: Path) -> Signature:
    """Return what changes when a file does: names, times, sizes and inodes, through links.

    Following links is what sees a Kubernetes ConfigMap swap its hidden folder below unchanged names.
    """
    found = []
    for folder in ("templates", "tenants"):
        try:
            entries = list(os.scandir(directory / folder))
        except FileNotFoundError:
            continue
        for entry in entries:
            if not entry.name.endswith(".yaml") or entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            found.append((f"{folder}/{entry.name}", status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))
