"""`tests/soak/crash.py`, short: the real process is killed, and all that logged out is cancelled all the same."""

from pathlib import Path

import pytest

from support.crash.run import Plan, crash

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.mark.parametrize("in_process", [False, True], ids=["over HTTP", "in process"])
async def test_whatever_logged_out_is_cancelled_however_often_the_service_is_killed(
    tmp_path: Path,
    in_process: bool,
) -> None:
    accounts = await crash(Plan(kills=5, seed=1, answers=12, hurry=True, in_process=in_process), tmp_path)
    assert accounts.failures == []
    # Enough was going on for that to mean something.
    assert accounts.counts["kills with requests under way"] >= 3
    assert accounts.counts["logged out: sessions cancelled at the authority"] >= 10
