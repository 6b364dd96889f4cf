"""How many sessions are live, over several processes."""

from service.sessions.census import Census


def test_what_one_minted_and_another_cancelled_adds_up() -> None:
    now = 1000.0
    one, two = Census(lambda: now), Census(lambda: now)
    for _ in range(3):
        one.minted("acme", 1300)
    two.minted("globex", 1102)
    two.ended("acme", 1300)
    assert one.live() == {"acme": 3}
    assert two.live() == {"globex": 1, "acme": -1}
    now = 1103.0
    assert two.live()["globex"] == 1, "ends are rounded up to five seconds"
    now = 1105.0
    assert two.live() == {"acme": -1}
    now = 1300.0
    assert sum((one.live() + two.live()).values()) == 0
    two.ended("acme", 1300)
    assert not two.live(), "its time was over anyway"
