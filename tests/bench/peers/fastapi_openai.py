"""A peer for `make bench`: FastAPI and the openai package, with one client for all requests."""

import os
import uuid
from typing import Annotated

from fastapi import Cookie, FastAPI, Response
from fastapi.responses import JSONResponse
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from pydantic import BaseModel
from serving import serve

COOKIE = "chatkit_session_id"
COOKIE_MAX_AGE = 30 * 24 * 3600
"""Seconds; as the starter's."""

WORKFLOW = os.environ["WORKFLOW_ID"]

app = FastAPI(title="FastAPI and the openai package")
client = AsyncOpenAI()  # reads OPENAI_API_KEY and OPENAI_BASE_URL


class Workflow(BaseModel):
    """The workflow that a front end asks for."""

    id: str


class Wish(BaseModel):
    """The body, which may name a workflow."""

    workflow: Workflow | None = None


class Secret(BaseModel):
    """The answer; `expires_at` in Unix seconds."""

    client_secret: str
    expires_at: int


@app.post("/api/create-session")
async def create_session(
    response: Response,
    wish: Wish | None = None,
    chatkit_session_id: Annotated[str | None, Cookie()] = None,
) -> Secret:
    """Answer `{client_secret, expires_at}` for the user of the cookie, or for a new one."""
    user = chatkit_session_id or str(uuid.uuid4())
    workflow = wish.workflow.id if wish and wish.workflow else WORKFLOW
    session = await client.beta.chatkit.sessions.create(user=user, workflow={"id": workflow})
    if not chatkit_session_id:
        response.set_cookie(COOKIE, user, max_age=COOKIE_MAX_AGE, path="/", httponly=True, samesite="lax")
    return Secret(client_secret=session.client_secret, expires_at=session.expires_at)


@app.exception_handler(APIStatusError)
async def refused(_request: object, error: APIStatusError) -> JSONResponse:
    """Pass upstream's status on."""
    return JSONResponse({"error": "ChatKit refused the session"}, error.status_code)


@app.exception_handler(APIConnectionError)
async def unreachable(_request: object, _error: APIConnectionError) -> JSONResponse:
    """Answer 502 where upstream can't be reached or doesn't answer in time."""
    return JSONResponse({"error": "ChatKit could not be reached"}, 502)


if __name__ == "__main__":
    serve(app)
