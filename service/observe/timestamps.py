"""Points in time as lines tell them: RFC 3339, in UTC."""

import time
from functools import lru_cache
from math import modf


def to_micros(now: float) -> str:
    """Return *now* (Unix seconds), rounded to the microsecond."""
    second, micros = _parts(now)
    return f"{_second(second)}.{micros:06d}Z"


def to_millis(now: float) -> str:
    """Return the millisecond that *now* (Unix seconds) is in."""
    second, micros = _parts(now)
    return f"{_second(second)}.{micros // 1000:03d}Z"


def _parts(now: float) -> tuple[int, int]:
    fraction, whole = modf(now)
    carried, micros = divmod(round(fraction * 1_000_000), 1_000_000)
    return int(whole) + carried, micros


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """Many lines are of one second, and formatting it costs as much as the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
