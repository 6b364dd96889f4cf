"""(d) A bare Starlette pass-through on our own transport: no auth, store, metrics or logs. What nothing can beat."""

import os

import httpx2
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.transport import make_transport

URL = httpx2.URL(os.environ["OPENAI_BASE_URL"] + "/chatkit/sessions")
HEADERS = {
    "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
    "openai-beta": "chatkit_beta=v1",
    "content-type": "application/json",
}
BODY = orjson.dumps({"user": "somebody", "workflow": {"id": os.environ["WORKFLOW_ID"]}})
transport = make_transport()


async def create(request: Request) -> Response:
    await request.body()
    response = await transport.handle_async_request(httpx2.Request("POST", URL, headers=HEADERS, content=BODY))
    try:
        body = await response.aread()
    finally:
        await response.aclose()
    session = orjson.loads(body)
    answer = orjson.dumps({"client_secret": session["client_secret"], "expires_at": session["expires_at"]})
    return Response(answer, media_type="application/json")


app = Starlette(routes=[Route("/api/create-session", create, methods=["POST"])])
