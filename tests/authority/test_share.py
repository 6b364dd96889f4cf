"""A share of a tenant's users moves to the authority while the rest stay hosted; nobody's logout is lost on the way."""

import secrets
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from authority.parts import on_a_port
from service.app import create_app
from service.settings import Settings
from service.upstream.authority.app import create_authority_app
from service.upstream.authority.sessions import Authority
from support.tenants import tenant_file, write_config
from support.tokens import Signer

KEY = "sk-" + secrets.token_hex(16)
USERS = [f"user-{number}" for number in range(40)]


async def states(redis: Redis) -> dict[str, tuple[str, str]]:
    """Whose project each session is in, and how it is, by id."""
    found: dict[str, tuple[str, str]] = {}
    async for key in redis.scan_iter(match="cm:authority:session:*"):
        pair: list[Any] = await redis.hmget(key, "tenant", "status")
        found[key.decode().split("{")[1].rstrip("}")] = (pair[0].decode(), pair[1].decode())
    return found


async def test_a_share_moves_and_logouts_find_their_sessions(redis: Redis, tmp_path: Path) -> None:
    hosted = create_authority_app(Authority(redis), keys={KEY: "hosted"})
    signer = Signer()

    def configured(percent: int) -> None:
        identity = {"issuer": signer.issuer, "audience": "acme", "algorithms": ["ES256"], "jwks": signer.jwks}
        share = {"name": "self-hosted", "split": [{"percent": percent, "upstream": {"kind": "authority"}}]}
        there = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": {"env": "KEY"}}
        write_config(tmp_path, tenant_file("acme", identity, upstream=there, rollout=[share]))

    async with on_a_port(hosted) as upstream:
        configured(40)
        app = create_app(Settings(config_dir=tmp_path), {"KEY": KEY}, redis=redis)
        async with on_a_port(app) as url, httpx2.AsyncClient(base_url=url) as client:

            async def call(path: str, user: str) -> Any:
                answer = await client.post(path, headers={"authorization": f"Bearer {tokens[user]}"})
                assert answer.status_code == 200, answer.text
                return answer.json()

            async def places() -> dict[str, str]:
                made = {user: (await call("/v1/chatkit/sessions", user))["id"] for user in USERS}
                known = await states(redis)
                return {user: known[made[user]][0] for user in USERS}

            tokens = {user: signer.token(user, aud="acme") for user in USERS}
            first = await places()
            assert 6 <= sum(place == "acme" for place in first.values()) <= 26
            assert await places() == first, "the same users stay in"
            configured(100)
            app.state.policies.reload()
            assert set((await places()).values()) == {"acme"}
            for user in USERS:
                assert await call("/v1/logout", user) == {"cancelled": 3, "pending": 0}
    known = await states(redis)
    assert len(known) == 3 * len(USERS)
    assert {status for _, status in known.values()} == {"cancelled"}
    assert {place for place, _ in known.values()} == {"acme", "hosted"}
