"""What must hold when a round of the race test is over, judged by what went through the gates and by the authority."""

from collections import Counter
from dataclasses import dataclass, field

from service.errors import LoginRevoked, StoreUnavailable, TooManyLiveSessions, UpstreamTimeout, UpstreamUnavailable
from service.principal import Principal
from support.gated import SCRIPTS
from support.race import Round
from support.race_actors import MintRun

assert {"admit", "record", "revoke", "retire", "enqueue"} <= set(SCRIPTS.values()), "the verdict goes by these names"


@dataclass
class Verdict:
    """What is wrong with a round, and its figures."""

    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Fence:
    """A logout, as Redis did it: the login that it ended, or (None) every token issued no later than *mark* (ms)."""

    at: int
    login: str | None
    mark: int

    def ends(self, who: Principal) -> bool:
        return who.login == self.login if self.login else _ms(who.issued_at) <= self.mark


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def judge(played: Round) -> Verdict:
    """Return the verdict on a round that was played to its end."""
    verdict = Verdict(wrong=[f"unexpected: {each}" for each in played.actors.unexpected])
    if played.left:
        verdict.wrong.append(f"left in the queue or on the due list: {', '.join(played.left)}")
    fences = _fences(played)
    for actor, mint in played.actors.mints.items():
        _judge_mint(played, actor, mint, [each for each in fences if each.ends(mint.who)], verdict)
    for actor, logout in played.actors.logouts.items():
        if logout.left_live:
            left = ", ".join(map(played.actors.named, logout.left_live))
            verdict.wrong.append(f"{actor} answered that nothing is pending while {left} lived on")
    if played.plan.most_live and not played.plan.refuse:
        _judge_limit(played, verdict)
    verdict.figures.update(f"sessions {status}" for status in played.statuses.values())
    verdict.figures["logouts"] += len(fences)
    return verdict


def _fences(played: Round) -> list[Fence]:
    fences = []
    known: list[int] = []
    """The times of all tokens that Redis has seen; a fence of the whole user is no earlier than any."""
    for each in played.steps.history:
        if each.what == "admit" and each.answer[0] == b"ok":
            known.append(_ms(played.actors.mints[each.actor].who.issued_at))
        if each.what == "revoke":
            logout = played.actors.logouts[each.actor]
            asking = [_ms(logout.who.issued_at)] if logout.who else []
            fences.append(Fence(each.at, logout.login, max(_ms(played.start + each.when), *asking, *known, 0)))
            if not logout.login:
                known.append(fences[-1].mark)
    return fences


def _judge_mint(played: Round, actor: str, mint: MintRun, fences: list[Fence], verdict: Verdict) -> None:
    history, outcome = played.steps.history, mint.outcome
    answered = next((each.at for each in history if each.what == "answer" and each.actor == actor), len(history))
    if isinstance(outcome, LoginRevoked):
        verdict.figures["mints refused"] += 1
        if not any(each.at < answered for each in fences):
            verdict.wrong.append(f"{actor} was refused, though nobody logged its login out")
    elif isinstance(outcome, str):
        verdict.figures["mints answered"] += 1
        if any(each.at < mint.began for each in fences):
            verdict.wrong.append(f"{actor} minted after the logout")
    elif outcome is not None:
        verdict.figures["mints failed"] += 1
        if not isinstance(outcome, _may_fail(played, actor)):
            verdict.wrong.append(f"{actor} failed: {outcome!r} {outcome.reason}")
    for session_id, owner in played.actors.owner.items():
        if owner == actor and session_id in played.statuses:
            _judge_session(played, session_id, mint, fences, verdict)


def _may_fail(played: Round, actor: str) -> tuple[type[Exception], ...]:
    """Return the failures that this round's troubles explain."""
    late = (StoreUnavailable, UpstreamTimeout) if any(" s pass" in each for each in played.steps.trace) else ()
    full = (TooManyLiveSessions,) if played.plan.refuse else ()
    down = (UpstreamUnavailable,) if actor in played.failing else ()
    # Recorded, and a newer one's turn before its own answer: then it is cancelled, and its secret doesn't leave.
    crowded = (StoreUnavailable,) if played.plan.most_live and not played.plan.refuse else ()
    return (*late, *full, *down, *crowded)


def _judge_session(played: Round, session_id: str, mint: MintRun, fences: list[Fence], verdict: Verdict) -> None:
    name, status = played.actors.named(session_id), played.statuses[session_id]
    about = [each for each in played.steps.history if session_id in each.ids]
    done = (b"ok", b"crowded")
    recorded = next((each.at for each in about if each.what == "record" and each.answer[0] in done), None)
    crashed = played.actors.owner[session_id].partition("/")[0] in played.steps.dead
    arrived = any(each.what == "created" for each in about)
    live = status == "active"
    if isinstance(mint.outcome, str) and recorded is None:
        verdict.wrong.append(f"{name} was handed out and is not recorded")
    if recorded is not None:
        if any(each.at < recorded for each in fences):
            verdict.wrong.append(f"{name} was recorded after the logout")
        if fences and live:
            verdict.wrong.append(f"{name} is live though its login was logged out")
        if not fences and status == "cancelled" and isinstance(mint.outcome, str) and not _given_up(played, session_id):
            verdict.wrong.append(f"{name} was cancelled, though nobody asked for it")
    elif live and arrived and not crashed:
        verdict.wrong.append(f"{name} is live and not recorded")
    elif live and any(each.what == "enqueue" for each in about):
        verdict.wrong.append(f"{name} was queued and is live")
    elif live:
        # Killed between create and record, or while what record refused was being cancelled. Its secret never left.
        refused = "given up" if any(each.what == "record" for each in about) else "create"
        verdict.figures[f"never recorded: crash after {refused}" if crashed else "never recorded: answer lost"] += 1
    if live and arrived and not crashed and mint.outcome is not None and not isinstance(mint.outcome, str):
        verdict.wrong.append(f"{name} is live though its mint failed")


def _given_up(played: Round, session_id: str) -> bool:
    """Whether the session gave way to a newer one, or was cancelled by its owner."""
    return any(
        (each.what == "retire" and each.answer is not None and session_id in each.ids)
        or (each.what == "record" and session_id.encode() in each.answer[1:])
        for each in played.steps.history
    )


def _judge_limit(played: Round, verdict: Verdict) -> None:
    recorded = {each.ids[0] for each in played.steps.history if each.what == "record" and each.answer[0] == b"ok"}
    recorded &= played.statuses.keys()
    live = [each for each in recorded if played.statuses.get(each) == "active"]
    raced = any(not played.actors.named(each).startswith(("a0", "b0")) for each in recorded)
    if raced and len(live) > (played.plan.most_live or 0):
        verdict.wrong.append(f"{len(live)} sessions live, the limit is {played.plan.most_live}")
