"""Whether upstream issues sessions of a tenant's workflows to its keys.

Tried with sessions of one second, which are cancelled at once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx2

from service.contract import ANCHOR, CREATE, SECONDS, USER, CreateSession, Path, unflatten
from service.doctor.findings import Finding, doubt, ok, wrong
from service.errors import Refusal, UpstreamRefused, UpstreamUnavailable
from service.policy.tenant import Body, Tenant
from service.session import Account
from service.upstream.issuer import SessionIssuer

WORKFLOW: Final[Path] = ("workflow", "id")
VERSION: Final[Path] = ("workflow", "version")
MISMATCH: Final = re.compile("project|organization")
"""In the code of a 401 that is not about the key itself."""
MEANINGS: Final[Mapping[int | None, tuple[str, str]]] = {
    401: ("bad key", "make a new key in the workflow's project; was this one revoked?"),
    403: ("not permitted", "has the key the right to ChatKit, and is this region served?"),
    429: ("no credit", "see the account's billing and limits"),
}
"""What upstream's refusal of a create means, by its status, and what to do."""
MOST_OTHERS: Final = 20
"""Keys of other tenants that are tried with a workflow that a tenant's own doesn't know."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A create body to try, and where its workflow is written."""

    body: CreateSession
    place: str
    account: Account

    @property
    def workflow(self) -> str:
        """Its workflow, with the version where it has one."""
        workflow = self.body["workflow"]
        return f"{workflow['id']} {workflow['version']}" if "version" in workflow else workflow["id"]


def trials(tenant: Tenant) -> tuple[list[Trial], list[str]]:
    """Return a body for each workflow that the tenant's files name, and the places where it depends on the caller."""
    found: dict[tuple[Any, Any, Account], Trial] = {}
    open_places: list[str] = []
    for place, account, fields, computed in _bodies(tenant):
        if WORKFLOW in computed or WORKFLOW not in fields:
            open_places.append(place)
            continue
        name = (fields[WORKFLOW], fields.get(VERSION), account)
        if name not in found:
            tried = {**fields, USER: f"{tenant.name}:chatkit-mint-doctor", SECONDS: 1, ANCHOR: "created_at"}
            found[name] = Trial(CREATE.validate_python(unflatten(tried)), place, account)
    return list(found.values()), open_places


def _bodies(tenant: Tenant) -> Iterable[tuple[str, Account, Mapping[Path, Any], Iterable[Path]]]:
    """Yield each body that the tenant's files can make: place, account, constants, and what depends on the caller."""
    for who, policy in _policies(tenant):
        base, usual = policy.session, policy.account
        yield f"{who}session", usual, base.constant, base.computed
        for rule in policy.rules:
            if rule.session:
                yield f"{who}rule {rule.name!r}", usual, *_over(base, rule.session)
        for rollout in policy.rollouts:
            for variant in rollout.split:
                changed = _over(base, variant.session) if variant.session else (base.constant, base.computed)
                where = f", {variant.account.kind}" if variant.account else ""
                yield f"{who}rollout {rollout.name!r}{where}", variant.account or usual, *changed
        choices = policy.client_may.get(WORKFLOW)
        for choice in (choices.choices or ()) if choices else ():
            fields = {path: value for path, value in base.constant.items() if path != VERSION}
            yield f"{who}client_may", usual, {**fields, WORKFLOW: choice}, ()


def _policies(tenant: Tenant) -> Iterable[tuple[str, Tenant]]:
    yield "", tenant
    if tenant.visitors:
        yield "visitors: ", tenant.visitors.policy


def _over(base: Body, above: Body) -> tuple[Mapping[Path, Any], set[Path]]:
    computed = ({*base.computed} - {*above.constant}) | {*above.computed}
    return {**base.constant, **above.constant}, computed


async def examine_upstream(
    tenant: Tenant, issuers: Mapping[str, SessionIssuer], others: Sequence[Account]
) -> list[Finding]:
    """Mint a session of one second for each workflow and key, and cancel it.

    *others* are other tenants' accounts: where one of them knows a workflow, that tells the wrong project from an
    unknown workflow.
    """
    tried, open_places = trials(tenant)
    findings = [
        doubt(
            f"tenant {tenant.name}: {place}",
            "the workflow depends on the caller, so it was not tried",
            f"mint as such a caller, or see: chatkit-mint explain --tenant {tenant.name}",
        )
        for place in dict.fromkeys(open_places)
    ]
    for usual in tenant.accounts:
        here = [trial for trial in tried if trial.account == usual]
        if usual.kind not in issuers:
            told = "kept in Redis; nothing to try before serve starts it"
            findings.append(ok(f"tenant {tenant.name}: own authority", told))
            continue
        keys = usual.api_keys or (None,)
        for number, key in enumerate(keys, start=1):
            account = replace(usual, api_keys=(key,)) if key else usual
            name = f", key {number} of {len(keys)}" if len(keys) > 1 else ""
            findings += [await _examine(account, trial, issuers, others, name) for trial in here]
    return findings


async def _examine(
    account: Account, trial: Trial, issuers: Mapping[str, SessionIssuer], others: Sequence[Account], key: str
) -> Finding:
    subject = f"tenant {account.tenant}: workflow {trial.workflow} ({trial.place}{key})"
    try:
        minted = await issuers[account.kind].create(account, trial.body)
    except UpstreamRefused as refusal:
        return await _refused(subject, refusal, account, trial, issuers, others)
    except UpstreamUnavailable as refusal:
        return wrong(subject, _said(refusal), f"is {account.base_url or 'Redis'} reachable from here, and well?")
    except Refusal as refusal:
        return wrong(subject, _said(refusal), "upstream answers, but not as ChatKit does; is the base_url right?")
    try:
        await issuers[account.kind].cancel(account, minted.session.id)
    except Refusal as refusal:
        return wrong(subject, f"minted, but the cancel failed: {_said(refusal)}", "a logout could end nothing here")
    return ok(subject, "minted and cancelled")


async def _refused(
    subject: str,
    refusal: UpstreamRefused,
    account: Account,
    trial: Trial,
    issuers: Mapping[str, SessionIssuer],
    others: Sequence[Account],
) -> Finding:
    """Tell a wrong project, an unknown workflow and a bad key apart."""
    status, code = refusal.upstream_status, refusal.upstream_code
    if status == httpx2.codes.NOT_FOUND:
        owner = await _who_knows(trial, account, issuers, others)
        if owner is None:
            return wrong(
                subject,
                "unknown workflow: there is none of that id in the key's project",
                "is the id right, and the workflow published? Or does it belong to another project than the key?",
            )
        return wrong(
            subject,
            f"wrong project: the key of tenant {owner} knows this workflow, this tenant's own does not",
            "use a key of the workflow's own project",
        )
    if status == httpx2.codes.UNAUTHORIZED and MISMATCH.search(code):
        return wrong(subject, f"wrong project: {_said(refusal)}", "the key is not of the project that the file names")
    what, hint = MEANINGS.get(status, ("refused", "upstream does not take the session as the tenant file has it"))
    return wrong(subject, f"{what}: {_said(refusal)}", hint)


async def _who_knows(
    trial: Trial, account: Account, issuers: Mapping[str, SessionIssuer], others: Sequence[Account]
) -> str | None:
    """Return another tenant whose key knows the workflow."""
    for other in others[:MOST_OTHERS]:
        if other.base_url != account.base_url or other.tenant == account.tenant:
            continue
        try:
            minted = await issuers[other.kind].create(other, trial.body)
            await issuers[other.kind].cancel(other, minted.session.id)
        except Refusal:
            continue
        return other.tenant
    return None


def _said(refusal: Refusal) -> str:
    return refusal.reason or refusal.code
