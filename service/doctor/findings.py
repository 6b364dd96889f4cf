"""What an examination found."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    DOUBT = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined: what, how it is, and (*hint*) what to do about it."""

    subject: str
    verdict: Verdict
    detail: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return it as lines for people."""
        line = f"{self.verdict:<8} {self.subject}: {self.detail}"
        return f"{line}\n{'':<8} → {self.hint}" if self.hint else line

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def ok(subject: str, detail: str) -> Finding:
    """Return that it is as it should be."""
    return Finding(subject, Verdict.OK, detail)


def doubt(subject: str, detail: str, hint: str) -> Finding:
    """Return that it works, and may not when it matters."""
    return Finding(subject, Verdict.DOUBT, detail, hint)


def wrong(subject: str, detail: str, hint: str) -> Finding:
    """Return that it doesn't work."""
    return Finding(subject, Verdict.WRONG, detail, hint)
