"""Points in time in log and audit lines: as the standard library writes them."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from service.observe.timestamps import to_micros, to_millis


@given(st.floats(-2e9, 4e9))
@example(1_700_000_000.123)
@example(1_699_999_999.999_999_8)
@example(-0.5)
@example(-1e-20)
def test_they_are_those_of_the_standard_library(now: float) -> None:
    for write, digits in ((to_millis, "milliseconds"), (to_micros, "microseconds")):
        told = datetime.fromtimestamp(now, UTC).isoformat(timespec=digits)
        assert write(now) == told.replace("+00:00", "Z")
