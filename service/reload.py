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
from service.observe.audit import Audit
from service.observe.logs import where
from service.observe.metrics import Metrics
from service.policy.load import PolicyError, load_policies
from service.policy.outside import Defaults, FileState, file_state
from service.policy.tenant import Policies
from service.session import Account

LOOK: Final = 1.0
"""Seconds between looks at the directory."""
RETRY: Final = 10.0
"""Seconds between tries at files that were wrong and have not changed."""
TRIES: Final = 5
"""Readings of a directory that changes meanwhile."""
REMEMBER: Final = 700.0
"""Seconds that an account stays known after its tenant moved or went: longer than any session lives."""

log = structlog.get_logger()

Signature = tuple[tuple[str, int, int, int], ...]


class PolicyStore:
    """The policies in force, and what replaces them. *clock* gives Unix seconds."""

    def __init__(
        self, directory: Path, defaults: Defaults, metrics: Metrics, audit: Audit, *, clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._defaults = defaults
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._signature = signature(directory)
        self._secrets: dict[Path, FileState] = {}
        self._tried_at = float("-inf")
        self._warming: asyncio.Task[None] | None = None
        self.current = self._load()
        self._secrets = dict(self.current.secret_files)
        self.failure: str | None = None
        """Why the files as they stand now are not in force; None where they are."""
        self._accounts: dict[tuple[str, str], tuple[Account, float]] = {}
        self._remember(self.current)
        metrics.know(self.current.tenants)
        self._loaded("ok")

    def account_at(self, tenant: str, place: str) -> Account | None:
        """Return a tenant's account where a session was issued, also if the tenant has moved since."""
        known = self._accounts.get((tenant, place))
        return known[0] if known else None

    def remember_for(self, tenant: str) -> float:
        """Return how long a logout of the tenant must be remembered, in seconds."""
        return self.current.remember_for(tenant)

    def reload(self) -> bool:
        """Load the directory and put it in force; return whether it was fit to be. Blocks: call it in a thread."""
        try:
            policies = self._load()
        except (PolicyError, OSError) as error:
            if isinstance(error, PolicyError):
                self._secrets |= error.secret_files  # what is wrong may be one of these: see it mended
            told_already = self.failure == str(error)
            self.failure = str(error)
            self._loaded("failed")
            if told_already:
                return False
            mistakes = [str(each) for each in error.mistakes] if isinstance(error, PolicyError) else [str(error)]
            self._audit.tell(
                "reload", tenant=None, outcome="refused", policy=self.current.version, mistakes=len(mistakes)
            )
            log.error("policies_not_reloaded", mistakes=mistakes[:20], count=len(mistakes), kept=self.current.version)
            return False
        self.failure = None
        self._secrets = dict(policies.secret_files)
        changed = policies.version != self.current.version
        if changed:
            before, after = set(self.current.tenants), set(policies.tenants)
            self._audit.tell(
                "reload",
                tenant=None,
                outcome="applied",
                policy=policies.version,
                before=self.current.version,
                tenants=len(after),
                added=sorted(after - before)[:20],
                removed=sorted(before - after)[:20],
            )
            log.info(
                "policies_reloaded",
                version=policies.version,
                tenants=len(after),
                added=sorted(after - before)[:20],
                removed=sorted(before - after)[:20],
            )
        else:
            log.info("policies_unchanged", version=policies.version)
        self._remember(self.current)  # until now, sessions were issued there
        self._remember(policies)
        self.current = policies
        self._metrics.know(policies.tenants)
        self._loaded("ok")
        return True

    async def watch(self, keys: KeyCache, asked: asyncio.Event) -> None:
        """Reload for ever: when a file changes, of policy or with a secret, and at once when *asked* is set."""
        wait, policies = LOOK, self.current
        told = {"policy": policies.version, "tenants": len(policies.tenants)}
        self._audit.tell("reload", tenant=None, outcome="started", **told)
        while True:
            try:
                async with asyncio.timeout(wait):
                    await asked.wait()
            except TimeoutError:
                pass
            started = time.perf_counter()
            asked_now = asked.is_set()
            asked.clear()
            try:
                if await asyncio.to_thread(self._changed, asked=asked_now) and await asyncio.to_thread(self.reload):
                    # Not waited for: an issuer that hangs must not keep the next change from being seen.
                    self._warming = asyncio.create_task(keys.warm(self.current.key_sources))
            except Exception as error:  # noqa: BLE001  (whatever it is, the next change must still be seen)
                self.failure = f"the tenant files can't be read: {type(error).__name__}"
                log.error("policies_not_reloaded", error=where(error), kept=self.current.version)
                self._loaded("failed")
            # A directory of many thousand files is looked at less often: at most a hundredth of a core.
            wait = max(LOOK, 100 * (time.perf_counter() - started))

    def _changed(self, *, asked: bool) -> bool:
        seen = signature(self._directory)
        secrets = {path: file_state(path) for path in self._secrets}
        changed = asked or seen != self._signature or secrets != self._secrets
        if self.failure is not None and time.monotonic() - self._tried_at > RETRY:
            changed = True  # what was wrong may have been outside: a secret or a key file that was not there yet
        if changed:
            self._signature, self._secrets, self._tried_at = seen, secrets, time.monotonic()
        return changed

    def _load(self) -> Policies:
        """Load files that belong together: if they change while they are read, read them again."""
        for _ in range(TRIES):
            before = signature(self._directory)
            try:
                policies = load_policies(self._directory, self._defaults)
            except PolicyError:
                if signature(self._directory) == before:
                    raise
                continue
            if signature(self._directory) == before:
                return policies
        raise OSError("the tenant files change faster than they can be read")

    def _remember(self, policies: Policies) -> None:
        now = self._clock()
        kept = {name: known for name, known in self._accounts.items() if now - known[1] < REMEMBER}
        fresh = {
            (each.name, account.place): (account, now)
            for each in policies.tenants.values()
            for account in (*each.former_accounts, *each.accounts)
        }
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
        except OSError as error:
            found.append((folder, -1, error.errno or 0, 0))
            continue
        for entry in entries:
            if not entry.name.endswith(".yaml") or entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except OSError as error:  # a link that leads nowhere, a file that may not be read: part of the picture
                found.append((f"{folder}/{entry.name}", -1, error.errno or 0, 0))
                continue
            found.append((f"{folder}/{entry.name}", status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))
