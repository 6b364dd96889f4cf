"""`chatkit-mint authority`, the command: it issues with an API key, and verifies what was issued with the same key."""

import re
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI

from chatkit_sessions.http import HTTPVerifier
from chatkit_sessions.session import NotActive, Unavailable
from support.processes import COMMAND, Process, clean_environ

pytestmark = pytest.mark.process


async def test_what_one_key_issued_it_can_verify_and_another_can_not(tmp_path: Path, redis_socket: Path) -> None:
    environ = clean_environ(CHATKIT_MINT_REDIS_URL=f"unix://{redis_socket}?db=11")
    command = [*COMMAND, "authority", "--port", "0"]
    authority = Process(output=tmp_path / "log", environ=environ, command=command)
    try:
        found = re.search(r"http://\S+", authority.wait_for(r"base URL .*")[0])
        assert found
        base = found[0]
        async with AsyncOpenAI(api_key="sk-one", base_url=base) as sdk, httpx2.AsyncClient() as client:
            session = await sdk.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf_1"})
            mine, others, wrong = (HTTPVerifier(base, key) for key in ("sk-one", "sk-two", "nothing"))
            assert (await mine.verify(session.client_secret)).user == "ada"
            with pytest.raises(NotActive):
                await others.verify(session.client_secret)
            with pytest.raises(Unavailable):
                await wrong.verify(session.client_secret)
            bearer = {"authorization": f"Bearer {session.client_secret}"}
            answer = await client.get(f"{base}/authorize", headers=bearer)
            assert (answer.status_code, answer.headers["x-chatkit-user"]) == (200, "ada")
            await sdk.beta.chatkit.sessions.cancel(session.id)
            answer = await client.get(f"{base}/authorize", headers=bearer)
            assert (answer.status_code, answer.json()["code"]) == (401, "session_not_active")
            for verifier in (mine, others, wrong):
                await verifier.aclose()
    finally:
        authority.stop()
