"""What issues sessions: OpenAI's hosted endpoint, or our own authority. Two implementations, one contract."""

from typing import Protocol

from service.contract import CreateSession
from service.session import Account, Minted, Session


class SessionIssuer(Protocol):
    """Creates and cancels. There is no get and no list: our records are the only registry of what was minted."""

    async def create(self, account: Account, body: CreateSession) -> Minted:
        """Have a session created.

        Raises `UpstreamRefused`, `UpstreamInvalid`, `UpstreamUnavailable` or `UpstreamTimeout`.
        """

    async def cancel(self, account: Account, session_id: str) -> Session | None:
        """Cancel a session and return it; None where it is gone already, which is what we wanted.

        Raises as `create` does where nobody knows that it is gone. Safe to repeat.
        """
