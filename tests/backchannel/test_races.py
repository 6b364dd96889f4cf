"""A logout while mints are under way: none of them gets away with a secret that lives on."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.parts import eventually
from api.stack import Caller
from backchannel.parts import Stack, accepted, is_out

pytestmark = pytest.mark.process

FORMS: dict[str, dict[str, Any]] = {
    "sub and sid": {},
    "sid alone": {"sub": None},
    "sub alone": {"sid": None},
    "sub and sid, and tokens without": {},
}


def test_a_mint_in_flight_is_refused_and_what_it_made_is_cancelled(stack: Stack) -> None:
    callers = {name: stack.someone("slow", **({"sid": None} if name.endswith("without") else {})) for name in FORMS}
    with ThreadPoolExecutor(len(FORMS)) as pool:
        minting = {name: pool.submit(caller.mint) for name, caller in callers.items()}
        eventually(lambda: stack.redis.leases("slow") == len(FORMS))
        for name, caller in callers.items():
            stack.logged_out(caller, **FORMS[name])
        assert not any(mint.done() for mint in minting.values())
        answers = {name: mint.result() for name, mint in minting.items()}
    for name, answer in answers.items():
        assert (answer.status_code, answer.json()["code"]) == (401, "login_revoked"), name
        assert "ek_" not in answer.text
    for name, caller in callers.items():
        [session] = stack.upstream.of(f"slow:{caller.subject}")
        assert session["status"] == "cancelled", name
        assert caller.live() == []


@pytest.mark.parametrize("name", FORMS)
def test_mints_all_around_a_logout_leave_nothing_alive(stack: Stack, name: str) -> None:
    """Whatever falls between any two steps of either: after the 200 no mint succeeds, and no session stays."""
    callers = [stack.someone(**({"sid": None} if name.endswith("without") else {})) for _ in range(3)]
    for caller in callers:
        outcomes = _mint_until_refused(stack, caller, FORMS[name])
        assert set(outcomes) <= {(200, None), (401, "login_revoked")}
        assert outcomes[401, "login_revoked"] == 6
        is_out(caller)
        assert caller.live() == []
        eventually(lambda caller=caller: _statuses(stack, caller) == {"cancelled"})  # type: ignore[misc]


def _mint_until_refused(stack: Stack, caller: Caller, form: dict[str, Any]) -> Counter[tuple[int, str | None]]:
    outcomes: Counter[tuple[int, str | None]] = Counter()
    done: list[bool] = []

    def mint() -> None:
        after = bool(done)
        answer = caller.mint()
        while answer.status_code == 200:
            assert not after, "minted after the logout was answered"
            outcomes[200, None] += 1
            after = bool(done)
            answer = caller.mint()
        outcomes[answer.status_code, answer.json()["code"]] += 1

    token = stack.provider.logout_token(caller, **form)
    with ThreadPoolExecutor(6) as pool:
        minting = [pool.submit(mint) for _ in range(6)]
        eventually(lambda: outcomes[200, None] >= 6)
        accepted(stack.post(token))
        done.append(True)
        for each in minting:
            each.result()
    return outcomes


def _statuses(stack: Stack, caller: Caller) -> set[str]:
    return {session["status"] for session in stack.upstream.of(f"{caller.tenant}:{caller.subject}")}
