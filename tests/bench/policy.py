"""`make bench-policy`: how loading and deciding grow with the number of tenants. Prints ratios; judges nothing else.

Absolute times are of this machine; the ratio of a decision among 10,000 tenants to one among 10 should be 1.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from service.configured import defaults_of
from service.policy.decide import decide
from service.policy.load import load_policies
from service.policy.tenant import Policies
from service.principal import Principal
from service.settings import Settings
from support.tenants import tenant_file, write_config

MANY, FEW = 10_000, 10
ROUNDS, DECISIONS = 15, 2_000


def tenants(count: int, directory: Path) -> tuple[Policies, float]:
    """Write and load *count* tenants with three rules; return them and the seconds that loading took."""
    rules = [
        {
            "name": f"rule {n}",
            "when": f'has(claims.plan) && claims.plan == "p{n}"',
            "session": {"workflow": {"version": "2"}},
        }
        for n in range(3)
    ]
    files = [
        tenant_file(
            f"tenant-{number}",
            {"issuer": f"https://login-{number}.example/", "audience": "app", "algorithms": ["ES256"]},
            extends="standard",
            rules=rules,
            session={"workflow": {"id": "wf", "state_variables": {"plan": "${claims.plan}"}}},
        )
        for number in range(count)
    ]
    write_config(directory, *files, standard={"session": {"expires_after": {"seconds": 300}}})
    started = time.perf_counter()
    policies = load_policies(directory, defaults_of(Settings(), {}))
    return policies, time.perf_counter() - started


def deciding(policies: Policies) -> float:
    """Seconds for a round of decisions, each for the next tenant."""
    now = time.time()
    callers = [
        (tenant, Principal(tenant.name, "alice", None, now, now + 600, claims={"sub": "alice", "plan": "p1"}))
        for tenant in list(policies.tenants.values())[:DECISIONS]
    ]
    rounds = -(-DECISIONS // len(callers))
    started = time.perf_counter()
    for _ in range(rounds):
        for tenant, principal in callers:
            decide(tenant, principal, {}, now=now)
    return (time.perf_counter() - started) / (rounds * len(callers))


def main() -> None:
    """Load both, decide in turns, print."""
    with tempfile.TemporaryDirectory() as few_dir, tempfile.TemporaryDirectory() as many_dir:
        few, _ = tenants(FEW, Path(few_dir))
        many, took = tenants(MANY, Path(many_dir))
        deciding(few), deciding(many)
        pairs = [(deciding(few), deciding(many)) for _ in range(ROUNDS)]
    ratio = statistics.median(large / small for small, large in pairs)
    print(f"{MANY:,} tenants loaded in {took:.1f} s (goal: under 10 s)")
    print(f"a decision: {statistics.median(small for small, _ in pairs) * 1e6:.1f} µs among {FEW}")
    print(f"a decision among {MANY:,} tenants costs {ratio:.2f} times that")


if __name__ == "__main__":
    main()
