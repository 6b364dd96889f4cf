"""What the front ends of OpenAI's official starters send to their servers, and what of it we understand.

`POST /api/create-session`, and in the older guide `/api/chatkit/start` and `/api/chatkit/refresh`. All mint: upstream
knows no refresh (upstream contract).
"""

from typing import Annotated, Any, Final, cast

from pydantic import Field, TypeAdapter, with_config

from service.contract import STRICT, SessionWish
from service.errors import InvalidRequest
from service.http.operation import BY_MINT, Credential, Operation
from service.http.shapes import STARTED

STARTERS: Final = ("/api/create-session", "/api/chatkit/start", "/api/chatkit/refresh")


@with_config(STRICT)
class StartWish(SessionWish, total=False):
    """A create body; or the workflow's id by itself, as some pages send it, and the secret that ends."""

    workflowId: Annotated[str, Field(min_length=1, max_length=256)]  # noqa: N815  (their spelling)
    workflow_id: Annotated[str, Field(min_length=1, max_length=256)]
    currentClientSecret: Annotated[str, Field(max_length=4096)] | None  # noqa: N815


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
    """Return the wishes. The old secret says nothing that the credential doesn't.

    Raises `InvalidRequest` where the workflow is named in several ways that differ: none of them is dropped.
    """
    wishes: dict[str, Any] = dict(start)
    wishes.pop("currentClientSecret", None)
    named = {wishes.pop(name) for name in ("workflowId", "workflow_id") if name in wishes}
    if named:
        asked = dict(wishes.get("workflow", {}))
        if len(named | ({asked["id"]} if "id" in asked else set())) > 1:
            raise InvalidRequest(detail="The workflow is named twice, and differently", field="workflow.id")
        wishes["workflow"] = {**asked, "id": named.pop()}
    return cast("SessionWish", wishes)
