"""Two issuers in processes of their own; each test gets them whole."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from identity.parts import Checking, Issuer
from service.identity import fetch


@pytest.fixture(scope="session")
def issuer_processes() -> Iterator[tuple[Issuer, Issuer]]:
    issuers = Issuer(), Issuer()
    yield issuers
    for issuer in issuers:
        issuer.stop()


@pytest.fixture
def issuer(issuer_processes: tuple[Issuer, Issuer]) -> Issuer:
    issuer_processes[0].reset()
    return issuer_processes[0]


@pytest.fixture
def other(issuer_processes: tuple[Issuer, Issuer]) -> Issuer:
    issuer_processes[1].reset()
    return issuer_processes[1]


@pytest.fixture
async def checking() -> AsyncIterator[Checking]:
    """A key cache that has fetched nothing yet; none of its tasks may outlive it."""
    checking = Checking()
    yield checking
    await checking.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def short_bound(monkeypatch: pytest.MonkeyPatch) -> float:
    """A fetch's bound, short enough to wait for."""
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    return 0.4
