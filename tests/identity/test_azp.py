"""Tokens that say whom they were issued to (`azp`), with an audience beside it or without one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from service.app import create_app
from service.configured import defaults_of
from service.policy.explain import explain
from service.policy.load import PolicyError, load_policies
from service.settings import Settings
from support.tenants import tenant_file, write_config
from support.tokens import Signer

SIGNER = Signer("https://clerk.example", "app")
APP, OTHER = "https://app.example", "https://other.example"
Client = httpx2.AsyncClient


def entry(**sections: Any) -> dict[str, Any]:
    return {"issuer": SIGNER.issuer, "algorithms": ["ES256"], "jwks": SIGNER.jwks, **sections}


@pytest.fixture
async def client(tmp_path: Path, redis: Redis) -> AsyncIterator[Client]:
    config = write_config(
        tmp_path,
        tenant_file("bare", entry(azp=[APP])),
        tenant_file("both", entry(audience="app", azp=[APP, "https://www.example"])),
        tenant_file("elsewhere", entry(azp=OTHER)),
    )
    app = create_app(Settings(config_dir=config), redis=redis)
    async with Client(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def tenant_of(client: Client, **claims: Any) -> str | int:
    """The tenant that a token gets into, or how it is refused."""
    token = SIGNER.token("alice", **claims)
    answer = await client.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}"})
    return str(answer.json()["user"]).partition(":")[0] if answer.status_code == 200 else answer.status_code


async def test_whom_a_token_was_issued_to_chooses_the_tenant(client: Client) -> None:
    assert await tenant_of(client, aud=None, azp=APP) == "bare"
    assert await tenant_of(client, aud=None, azp=OTHER) == "elsewhere"
    assert await tenant_of(client, aud="app", azp="https://www.example") == "both"


@pytest.mark.parametrize("azp", [None, "https://evil.example", "", [APP], {"a": 1}, 7, APP + "/", APP.upper()])
@pytest.mark.parametrize("aud", [None, "app"])
async def test_issued_to_anybody_else_it_is_refused(client: Client, aud: str | None, azp: Any) -> None:
    assert await tenant_of(client, aud=aud, azp=azp) == 401


@pytest.mark.parametrize("aud", ["somebody-elses-api", ["a", "b"], [], "", 7, {}])
async def test_a_token_for_an_audience_is_not_for_who_names_none(client: Client, aud: Any) -> None:
    """RFC 7519 §4.1.3: whoever finds an `aud` and is not in it must refuse the token."""
    assert await tenant_of(client, aud=aud, azp=APP) == 401


async def test_a_token_without_an_audience_is_for_nobody_who_has_one(client: Client) -> None:
    assert await tenant_of(client, aud=None, azp="https://www.example") == 401


async def test_no_logout_token_is_for_who_names_no_audience(client: Client) -> None:
    events: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    token = SIGNER.token("alice", headers={"typ": "logout+jwt"}, aud=None, azp=APP, jti="j", events=events)
    answer = await client.post("/v1/logout/backchannel", data={"logout_token": token})
    assert answer.status_code == 400


def test_explain_goes_by_it_too(tmp_path: Path) -> None:
    settings = Settings(config_dir=write_config(tmp_path, tenant_file("bare", entry(azp=APP))))
    tenant = load_policies(tmp_path, defaults_of(settings, {})).tenants["bare"]
    assert explain(tenant, {"sub": "alice"}, {}).granted
    assert explain(tenant, {"sub": "alice", "azp": APP}, {}).granted
    for wrong in ({"azp": OTHER}, {"azp": [APP]}, {"azp": APP, "aud": "app"}):
        with pytest.raises(ValueError, match="fit no identity entry"):
            explain(tenant, {"sub": "alice", **wrong}, {})


def test_an_entry_says_for_whom_its_tokens_are(tmp_path: Path) -> None:
    settings = Settings(config_dir=write_config(tmp_path, tenant_file("bare", entry())))
    with pytest.raises(PolicyError, match="`audience` is missing; or `azp`"):
        load_policies(tmp_path, defaults_of(settings, {}))
