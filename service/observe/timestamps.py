"""Points in time as lines tell them: RFC 3339, in UTC."""

import time
from functools import lru_cache


def to_micros(now: float) -> str:
    """Return *now* (Unix seconds) to the microsecond."""
    return f"{_second(int(now))}.{int(now % 1 * 1_000_000):06d}Z"


def to_millis(now: float) -> str:
    """Return *now* (Unix seconds) to the millisecond."""
    return f"{_second(int(now))}.{int(now % 1 * 1_000):03d}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """Many lines are of one second, and formatting it costs as much as the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
