"""The one error that the authority answers with, in upstream's words.

Source: the upstream contract, "Errors": `{"error": {"message", "type", "param", "code"}}`.
"""

from collections.abc import Mapping
from typing import Any, Final

INVALID_REQUEST: Final = "invalid_request_error"
SERVER_ERROR: Final = "server_error"


class WireError(Exception):
    """An answer of *status* with OpenAI's error body; its message is public and carries no secret."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,  # noqa: A002  (the field's own name on the wire)
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers: Mapping[str, str] = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body: all four members, null where there is nothing to say."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def server_error() -> WireError:
    """Return upstream's 500, which says nothing about its cause."""
    return WireError(500, "The server had an error while processing your request. Sorry about that!", type=SERVER_ERROR)
