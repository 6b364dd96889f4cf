"""A peer for `make bench`: the flow of the official Python starter, with an HTTP client for every request.

The client is made anew each time because the starter does so, and with it a TLS context, whatever the scheme.
"""

import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from serving import serve

COOKIE = "chatkit_session_id"
COOKIE_MAX_AGE = 30 * 24 * 3600
"""Seconds; the starter's 30 days."""

app = FastAPI(title="The starter's flow")
app.add_middleware(
    CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
)


@app.post("/api/create-session")
async def create_session(request: Request) -> JSONResponse:
    """Answer `{client_secret, expires_after}`, or `{error}` with upstream's status, 400, 500 or 502."""
    api_key = os.getenv("OPENAI_API_KEY")
    if not api_key:
        return answer({"error": "OPENAI_API_KEY is not set"}, 500)
    workflow = workflow_of(json_object(await request.body()))
    if not workflow:
        return answer({"error": "No workflow was named"}, 400)
    user = request.cookies.get(COOKIE)
    fresh = None if user else str(uuid.uuid4())

    try:
        async with httpx.AsyncClient(base_url=api_base(), timeout=10.0) as client:
            upstream = await client.post(
                "/v1/chatkit/sessions",
                headers={
                    "Authorization": f"Bearer {api_key}",
                    "OpenAI-Beta": "chatkit_beta=v1",
                    "Content-Type": "application/json",
                },
                json={"workflow": {"id": workflow}, "user": user or fresh},
            )
    except httpx.RequestError:
        return answer({"error": "ChatKit could not be reached"}, 502, fresh)

    session = json_object(upstream.content)
    if not upstream.is_success:
        return answer({"error": error_of(session) or upstream.reason_phrase}, upstream.status_code, fresh)
    if not session.get("client_secret"):
        return answer({"error": "Upstream answered without a client secret"}, 502, fresh)
    return answer(
        {"client_secret": session["client_secret"], "expires_after": session.get("expires_after")}, 200, fresh
    )


def answer(body: Mapping[str, Any], status: int, fresh_user: str | None = None) -> JSONResponse:
    """Return the JSON answer; it sets the cookie where the user is new."""
    response = JSONResponse(body, status)
    if fresh_user:
        response.set_cookie(COOKIE, fresh_user, max_age=COOKIE_MAX_AGE, path="/", httponly=True, samesite="lax")
    return response


def api_base() -> str:
    """Return the base URL without its `/v1`: the starter's paths begin with it."""
    return os.environ["OPENAI_BASE_URL"].removesuffix("/v1")


def json_object(text: bytes) -> Mapping[str, Any]:
    """Return the object in *text*, an empty one where there is none."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


def workflow_of(body: Mapping[str, Any]) -> str | None:
    """Return the workflow that the body names as `workflow.id` or `workflowId`, else the configured one."""
    nested = body.get("workflow")
    named = (nested.get("id") if isinstance(nested, Mapping) else None) or body.get("workflowId")
    chosen = named or os.getenv("WORKFLOW_ID")
    return chosen.strip() if isinstance(chosen, str) else None


def error_of(body: Mapping[str, Any]) -> str | None:
    """Return the message of upstream's `error`, which is a string or an object."""
    error = body.get("error")
    message = error.get("message") or error.get("code") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else None


if __name__ == "__main__":
    serve(app)
