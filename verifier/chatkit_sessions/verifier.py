"""What tells whether a session is live: Redis itself, or the authority over HTTP. Two implementations, one contract."""

from collections.abc import Collection
from typing import Protocol

from chatkit_sessions.session import VerifiedSession


class Verifier(Protocol):
    """Verifies, and counts what it lets through. Raises `Unavailable` wherever it can't tell."""

    async def verify(self, secret: str) -> VerifiedSession:
        """Count one request of the session that *secret* belongs to, and return the session.

        Raises `NotActive`, `TooManyRequests` or `Unavailable`.
        """

    async def take_upload(self, session: VerifiedSession, size: int) -> None:
        """Count one more file, of *size* bytes; raise `UploadRefused` where the session doesn't grant it."""

    async def ended(self, ids: Collection[str]) -> set[str]:
        """Return those of the sessions that are live no more. Raises `Unavailable`."""

    async def aclose(self) -> None:
        """Close what it opened."""
