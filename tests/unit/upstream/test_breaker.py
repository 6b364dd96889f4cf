"""A breaker opens after failures in a row, lets a single call try, and never stays shut for good."""

from types import SimpleNamespace

import pytest

from service.upstream.breaker import AGAIN, FIRST, LAST, MOST, THRESHOLD, Breakers, Name

NAME: Name = ("https://api.example/v1", b"key")


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def breakers(clock: SimpleNamespace) -> Breakers:
    return Breakers(lambda: clock.now)


def fail(breakers: Breakers, times: int = 1, name: Name = NAME) -> bool:
    """Calls that were let through and failed; whether the last one opened it."""
    opened = False
    for _ in range(times):
        assert breakers.held_back(name) is None
        opened = breakers.failed(name, breakers.enter(name))
    return opened


def test_it_opens_after_failures_in_a_row_alone(breakers: Breakers) -> None:
    for _ in range(3):
        assert not fail(breakers, THRESHOLD - 1)
        breakers.succeeded(NAME)
    assert fail(breakers, THRESHOLD)
    assert breakers.held_back(NAME) == FIRST


def test_another_key_or_upstream_is_not_held_back(breakers: Breakers) -> None:
    fail(breakers, THRESHOLD)
    assert breakers.held_back(("https://api.example/v1", b"other")) is None
    assert breakers.held_back(("https://other.example/v1", b"key")) is None


def test_one_call_tries_and_the_others_wait_for_it(breakers: Breakers, clock: SimpleNamespace) -> None:
    fail(breakers, THRESHOLD)
    clock.now += FIRST - 0.5
    assert breakers.held_back(NAME) == 0.5
    clock.now += 0.5
    assert breakers.held_back(NAME) is None
    assert breakers.enter(NAME)
    assert breakers.held_back(NAME) == AGAIN
    breakers.succeeded(NAME)
    assert breakers.held_back(NAME) is None
    assert len(breakers) == 0


def test_while_the_try_fails_it_stays_open_for_longer_and_longer(breakers: Breakers, clock: SimpleNamespace) -> None:
    fail(breakers, THRESHOLD)
    for lasts in (2 * FIRST, 4 * FIRST, LAST, LAST):
        clock.now += LAST
        assert fail(breakers)
        assert breakers.held_back(NAME) == lasts
    clock.now += LAST
    breakers.enter(NAME)
    breakers.succeeded(NAME)
    assert fail(breakers, THRESHOLD)
    assert breakers.held_back(NAME) == FIRST


def test_a_try_that_was_given_up_leaves_the_next_one_to_try(breakers: Breakers, clock: SimpleNamespace) -> None:
    fail(breakers, THRESHOLD)
    clock.now += FIRST
    breakers.abandoned(breakers.enter(NAME))
    assert breakers.held_back(NAME) is None


def test_what_began_before_it_opened_changes_nothing_when_it_fails_after(
    breakers: Breakers, clock: SimpleNamespace
) -> None:
    early = breakers.enter(NAME)
    fail(breakers, THRESHOLD)
    clock.now += FIRST
    probe = breakers.enter(NAME)
    assert not breakers.failed(NAME, early)
    assert breakers.held_back(NAME) == AGAIN  # the try is still under way
    breakers.abandoned(early)
    assert breakers.held_back(NAME) == AGAIN
    assert breakers.failed(NAME, probe)


def test_a_late_success_closes_it_and_the_try_then_counts_as_any_other(
    breakers: Breakers, clock: SimpleNamespace
) -> None:
    fail(breakers, THRESHOLD)
    clock.now += FIRST
    probe = breakers.enter(NAME)
    breakers.succeeded(NAME)
    assert not breakers.failed(NAME, probe)
    assert breakers.held_back(NAME) is None


def test_no_more_are_remembered_than_are_useful(breakers: Breakers) -> None:
    fail(breakers, THRESHOLD, ("first", b""))
    for number in range(MOST):
        fail(breakers, 1, (f"https://{number}", b""))
    assert len(breakers) == MOST
    assert breakers.held_back(("first", b"")) is None
