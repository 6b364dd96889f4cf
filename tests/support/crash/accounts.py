"""The accounts: what the authority has, against what clients were told and what Redis was told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from service.store.records import UserKeys, login_mark
from support.crash.load import EVERYWHERE, LOGOUT, MINT, Load, Login
from support.crash.witness import Witness

EXPECTED = {200, 401, 503}
"""Done; logged out; Redis or upstream too slow on a machine that is busy: all else is a defect."""


@dataclass
class Accounts:
    """Counts, in the order in which they are printed, and every way in which they don't balance."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def check(self, text: str, wrong: Sequence[object]) -> None:
        """Note a failure for each of *wrong*, the first few by name."""
        if wrong:
            some = ", ".join(str(each) for each in list(wrong)[:3])
            self.failures.append(f"{len(wrong)} x {text}: {some}")


def fenced(redis: Redis, logins: Sequence[Login]) -> set[str]:
    """Return the names of the logins that a fence in Redis ends: its own `sid`'s, or the whole user's."""
    fences: dict[str, dict[bytes, bytes]] = {}
    found = set()
    for login in logins:
        key = UserKeys.of(login.tenant, login.subject).fence
        if key not in fences:
            fences[key] = redis.hgetall(key)  # type: ignore[assignment]  # redis-py types both clients as one
        marks = [fences[key].get(b"*", b"-1"), fences[key].get(b"s", b"-1") if login.sid is None else b"-1"]
        by_sid = login.sid is not None and f"s{login_mark(login.sid)}".encode() in fences[key]
        if by_sid or login.issued_at * 1000 <= max(map(int, marks)):
            found.add(login.name)
    return found


def balance(
    load: Load, witness: Witness, redis: Redis, sessions: Mapping[str, Mapping[str, Any]], *, kills: int
) -> Accounts:
    """Return the accounts; *sessions* are the authority's own, by id, each with the status that was written last."""
    accounts = Accounts({"kills": kills})
    _asked(accounts, load)
    ended = fenced(redis, load.logins)
    accounts.counts |= {
        "logins": len(load.logins),
        "logged out: logins, by the fences in Redis": len(ended),
        "logged out: logins whose logout was answered 200": sum(login.out_since is not None for login in load.logins),
    }
    accounts.check(
        "login whose logout was answered 200 has no fence",
        [login.name for login in load.logins if login.out_since is not None and login.name not in ended],
    )
    _ended(accounts, witness, sessions, ended)
    _others(accounts, load, witness, sessions, ended)
    _answers(accounts, load, witness, sessions)
    _redis(accounts, redis)
    return accounts


def _asked(accounts: Accounts, load: Load) -> None:
    """Count requests by what became of them."""
    for what in (MINT, LOGOUT, EVERYWHERE):
        those = [each for each in load.asked if each.what == what]
        status = Counter(each.status for each in those)
        accounts.counts |= {
            f"{what}: asked": len(those),
            f"{what}: answered 200": status[200],
            f"{what}: answered 401, logged out": status[401],
            f"{what}: answered 503": status[503],
            f"{what}: cut off by a kill": status[None],
        }
        accounts.check(
            f"{what} answered as it never should be",
            [f"{each.status} {each.code}" for each in those if each.status and each.status not in EXPECTED],
        )
    accounts.check(
        "mint answered 401 for another reason than a logout",
        [each.code for each in load.asked if each.status == 401 and each.code != "login_revoked"],
    )


def _ended(accounts: Accounts, witness: Witness, sessions: Mapping[str, Mapping[str, Any]], ended: set[str]) -> None:
    """Every session of a login that logged out is cancelled, but for those that the service never heard of."""
    theirs = {each for each, session in sessions.items() if _login_of(session) in ended}
    cancelled = {each for each in theirs if sessions[each]["status"] == "cancelled"}
    left, unknown = theirs - cancelled, theirs - witness.told
    accounts.counts |= {
        "sessions: created by the authority": len(sessions),
        "sessions: recorded in Redis": len(sessions.keys() & witness.recorded),
        "sessions: known to the service, refused by record, cancelled or not": len(
            sessions.keys() & witness.told - witness.recorded
        ),
        "sessions: created and never recorded, since the answer never arrived": len(sessions.keys() - witness.told),
        "logged out: sessions": len(theirs),
        "logged out: sessions cancelled at the authority": len(cancelled),
        "logged out: sessions not cancelled, the exceptions": len(left),
        "logged out: sessions created and never recorded, which must be as many": len(unknown),
    }
    accounts.check("session of a login that logged out, recorded and not cancelled", sorted(left & witness.recorded))
    accounts.check(
        "session of a login that logged out, whose create answer arrived, neither recorded nor cancelled",
        sorted((left & witness.told) - witness.recorded),
    )
    if left != unknown:
        accounts.failures.append(f"{len(left)} exceptions, but {len(unknown)} were created and never recorded")
    accounts.check(
        "session that the authority created by MONITOR and does not list", sorted(witness.created - sessions.keys())
    )
    accounts.check("session that the authority lists and MONITOR never saw", sorted(sessions.keys() - witness.created))
    accounts.check("recorded session that the authority does not know", sorted(witness.recorded - sessions.keys()))


def _others(
    accounts: Accounts,
    load: Load,
    witness: Witness,
    sessions: Mapping[str, Mapping[str, Any]],
    ended: set[str],
) -> None:
    """No session of a login that never logged out is cancelled, except by a limit or because nobody was given it."""
    handed_out = {each.session for each in load.asked if each.session}
    others = {each for each, session in sessions.items() if _login_of(session) not in ended}
    cancelled = {each for each in others if sessions[each]["status"] == "cancelled"}
    by_limit = {each for each in cancelled if "session_limit" in witness.reasons[each]}
    given_up = {each for each in cancelled - by_limit - handed_out if witness.reasons[each] <= {"not_recorded"}}
    accounts.counts |= {
        "not logged out: sessions": len(others),
        "not logged out: sessions cancelled by a limit": len(by_limit),
        "not logged out: sessions cancelled since they could not be recorded": len(given_up),
    }
    accounts.check(
        "session of a login that never logged out, cancelled all the same", sorted(cancelled - by_limit - given_up)
    )
    accounts.check(
        "session that gave way to a limit and is not cancelled", sorted(_gave_way(witness) & others - cancelled)
    )


def _answers(accounts: Accounts, load: Load, witness: Witness, sessions: Mapping[str, Mapping[str, Any]]) -> None:
    """Whoever was handed a secret was handed one that can be revoked, and not after the logout."""
    minted = [each for each in load.asked if each.what == MINT and each.status == 200]
    accounts.check(
        "mint answered 200 and its session never recorded",
        [each.session for each in minted if each.session not in witness.recorded],
    )
    accounts.check(
        "mint answered 200 though its logout had been answered before it was asked",
        [each.session for each in minted if each.login.out_since is not None and each.login.out_since < each.sent],
    )
    accounts.check(
        "mint answered 200 with another login's session",
        [each.session for each in minted if _login_of(sessions.get(each.session or "", {})) != each.login.name],
    )


def _redis(accounts: Accounts, redis: Redis) -> None:
    """Nothing is still to be cancelled, on the list of due users or off it."""
    queued = [key.decode() for key in redis.scan_iter("cm:{*}:queue", count=1000) if redis.hlen(key)]
    due = [key.decode() for key in redis.scan_iter("cm:due:*", count=1000)]
    accounts.check("user with something to cancel after all was quiet", queued)
    accounts.check("list of due users that is not empty", due)
    live: list[Any] = [redis.get(key) for key in redis.scan_iter("cm:{*}:live", count=1000)]
    accounts.counts["leases of killed mints, left to lapse"] = sum(lines.count(b"\n~") for lines in live if lines)


def _gave_way(witness: Witness) -> set[str]:
    return {each for each, reasons in witness.reasons.items() if "session_limit" in reasons}


def _login_of(session: Mapping[str, Any]) -> str | None:
    """Return the name of the login that minted it: the policy writes it into the state variables."""
    variables = session.get("workflow", {}).get("state_variables") or {}
    name: str | None = variables.get("login")
    return name
