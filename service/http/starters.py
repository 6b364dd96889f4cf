"""What the front ends of OpenAI's official starters send to their servers, and what of it we understand.

`POST /api/create-session`, and in the older guide `/api/chatkit/start` and `/api/chatkit/refresh`. All mint: upstream
knows no refresh (upstream contract).
"""

from typing import Annotated, Any, Final, cast

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from service.contract import STRICT, Configuration, ExpiresAfter, RateLimits, SessionWish, User, WorkflowWish
from service.http.operation import BY_MINT, Credential, Operation
from service.http.shapes import STARTED

STARTERS: Final = ("/api/create-session", "/api/chatkit/start", "/api/chatkit/refresh")


@with_config(STRICT)
class StartWish(TypedDict, total=False):
    """A create body; or the workflow's id by itself, as some pages send it, and the secret that ends."""

    user: User
    workflow: WorkflowWish
    expires_after: ExpiresAfter
    rate_limits: RateLimits
    chatkit_configuration: Configuration
    workflowId: Annotated[str, Field(min_length=1, max_length=256)]
    workflow_id: Annotated[str, Field(min_length=1, max_length=256)]
    currentClientSecret: Annotated[str, Field(max_length=4096)] | None


START: Final[TypeAdapter[StartWish]] = TypeAdapter(StartWish)

OPERATIONS: Final = tuple(
    Operation(
        "POST",
        path,
        name,
        "Mint a session as the official starters' servers do, for a page that was written for one of them.",
        Credential.USER,
        BY_MINT,
        shape=START,
        answer=STARTED,
        example={"workflow": {"id": "wf_support"}},
        minting=True,
    )
    for path, name in zip(STARTERS, ("createSession", "startSession", "refreshSession"), strict=True)
)


def wishes_of(start: StartWish) -> SessionWish:
    """Return the wishes. The old secret says nothing that the credential doesn't."""
    wishes: dict[str, Any] = dict(start)
    wishes.pop("currentClientSecret", None)
    named = [wishes.pop(name) for name in ("workflowId", "workflow_id") if name in wishes]
    if named:
        wishes["workflow"] = {**wishes.get("workflow", {}), "id": named[0]}
    return cast("SessionWish", wishes)
