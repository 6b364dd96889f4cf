"""Every token with every tenant: only the pairs that were meant, whatever issuers have in common."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from identity.parts import Checking, Issuer, Trusts, by_issuer, trust
from service.app import create_app
from service.identity.claims import LOGOUT_EVENT
from service.principal import InlineJwks, JwksUrl, KeySource, SharedSecret
from service.settings import Settings
from support.forge import sign
from support.issuer import JWKS
from support.tenants import tenant_file, write_config
from support.tokens import Signer

INLINE = "https://inline.example/"
HASHED = {"https://hs-one.example/": b"1" * 32, "https://hs-two.example/": b"2" * 32}
HASHES = frozenset({"HS256"})
AUDIENCES = ("app", "console")
NOBODY = "initech"


class Parties:
    """Five issuers, all with `kid` k1 and a user alice; each has a tenant for either audience."""

    def __init__(self, issuer: Issuer, other: Issuer) -> None:
        inline = Signer(INLINE)
        self.keys: dict[str, tuple[str, Any]] = {each.issuer: ("ES256", each.key) for each in (issuer.signer, inline)}
        self.keys[other.url] = ("ES256", other.signer.key)
        self.keys |= {name: ("HS256", secret) for name, secret in HASHED.items()}
        self.kids = {issuer.signer.kid, other.signer.kid, inline.kid}
        sources: dict[str, KeySource] = {
            issuer.url: issuer.source,
            other.url: JwksUrl(other.url + JWKS),
            INLINE: InlineJwks(json.dumps(inline.jwks)),
            **{name: SharedSecret(SecretStr(secret.decode())) for name, secret in HASHED.items()},
        }
        self.tenants = {
            (name, audience): f"t{number}-{audience}" for number, name in enumerate(sources) for audience in AUDIENCES
        }
        self.trusts = by_issuer(
            *(
                trust(
                    name,
                    sources[name],
                    tenant,
                    audiences=frozenset({audience}),
                    algorithms=frozenset({self.keys[name][0]}),
                )
                for (name, audience), tenant in self.tenants.items()
            )
        )

    def token(self, owner: str, claimed: str, audience: Any, kid: str | None = "k1") -> str:
        """A token signed by one issuer in the name of another, or its own."""
        alg, key = self.keys[owner]
        header = {"alg": alg} | ({"kid": kid} if kid else {})
        return sign(alg, key, header, Signer(claimed, key=None).claims(aud=audience))


@pytest.mark.parametrize("kid", ["k1", None])
async def test_no_key_speaks_for_another_issuer_and_no_token_reaches_another_tenant(
    checking: Checking, issuer: Issuer, other: Issuer, kid: str | None
) -> None:
    parties = Parties(issuer, other)
    assert parties.kids == {"k1"}
    let_in = set()
    for owner in parties.keys:
        for claimed in parties.keys:
            for audience in AUDIENCES:
                token = parties.token(owner, claimed, audience, kid)
                own = parties.tenants[claimed, audience]
                for asked in [None, NOBODY, *parties.tenants.values()]:
                    found = await checking.outcome(token, parties.trusts, asked)
                    if owner != claimed:
                        assert found == "invalid_token"
                    elif asked in (None, own):
                        assert found == f"{own}/alice"
                        let_in.add(own)
                    else:
                        assert found == "policy_denied"
    assert let_in == set(parties.tenants.values())
    assert len(let_in) == 2 * len(parties.keys)


@pytest.mark.parametrize("audience", ["nobody", "App", "app ", " app", "ap", "", "app,console", "app console"])
async def test_other_audiences_reach_no_tenant(
    checking: Checking, issuer: Issuer, other: Issuer, audience: str
) -> None:
    parties = Parties(issuer, other)
    for name in parties.keys:
        assert await checking.outcome(parties.token(name, name, audience), parties.trusts) == "invalid_token"


async def test_token_for_two_audiences_is_of_the_tenant_that_the_caller_chooses(
    checking: Checking, issuer: Issuer, other: Issuer
) -> None:
    parties = Parties(issuer, other)
    for name in parties.keys:
        token = parties.token(name, name, [*AUDIENCES, "elsewhere"])
        assert await checking.outcome(token, parties.trusts) == "invalid_request"
        for (owner, _), tenant in parties.tenants.items():
            found = await checking.outcome(token, parties.trusts, tenant)
            assert found == (f"{tenant}/alice" if owner == name else "policy_denied")


async def test_issuer_that_publishes_another_ones_key_gains_no_user_of_it(
    checking: Checking, issuer: Issuer, other: Issuer
) -> None:
    other.publish(other.signer, issuer.signer)
    trusts = by_issuer(trust(issuer.url, issuer.source), trust(other.url, other.source, "globex"))
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    assert await checking.outcome(issuer.signer.token(), trusts, "globex") == "policy_denied"
    assert await checking.outcome(other.signer.token(iss=issuer.url), trusts) == "invalid_token"


async def test_one_issuer_with_two_sources_of_keys_keeps_them_apart(checking: Checking, issuer: Issuer) -> None:
    """A tenant believes the keys that its own file names, not those that another tenant's names for the issuer."""
    pinned = Signer(issuer.url)
    secret = b"s" * 32
    trusts = by_issuer(
        trust(issuer.url, issuer.source),
        trust(issuer.url, InlineJwks(json.dumps(pinned.jwks)), "globex"),
        trust(issuer.url, SharedSecret(SecretStr(secret.decode())), "hooli", algorithms=HASHES),
    )
    hashed = sign("HS256", secret, {"alg": "HS256", "kid": "k1"}, pinned.claims())
    for token, own in ((issuer.signer.token(), "acme"), (pinned.token(), "globex"), (hashed, "hooli")):
        assert await checking.outcome(token, trusts) == f"{own}/alice"
        for tenant in ("acme", "globex", "hooli"):
            found = await checking.outcome(token, trusts, tenant)
            assert found == (f"{own}/alice" if tenant == own else "policy_denied")


async def test_outage_of_one_source_leaves_the_issuers_other_source(
    checking: Checking, issuer: Issuer, other: Issuer
) -> None:
    other.fault("error")
    trusts = by_issuer(
        trust(issuer.url, JwksUrl(other.url + JWKS), "globex"),
        trust(issuer.url, issuer.source),
    )
    assert await checking.outcome(issuer.signer.token(), trusts) == "acme/alice"
    # Nobody can tell whether this one is globex's until its keys are there.
    assert await checking.outcome(other.signer.token(iss=issuer.url), trusts) == "issuer_unavailable"


def strict_and_lax(issuer: Issuer) -> Trusts:
    strict = trust(issuer.url, issuer.source, "strict", typ="at+jwt", max_age=60.0, leeway=0.0)
    lax = trust(issuer.url, issuer.source, "lax", accept_id_tokens=True)
    return by_issuer(strict, lax)


@pytest.mark.parametrize(
    ("headers", "claims", "fitting"),
    [
        ({"typ": "at+jwt"}, {}, {"strict", "lax"}),
        ({"typ": "JWT"}, {}, {"lax"}),
        ({}, {"nonce": "n"}, {"lax"}),
        ({"typ": "at+jwt"}, {"iat": -120}, {"lax"}),
        ({"typ": "at+jwt"}, {"exp": -10}, {"lax"}),
        ({"typ": "at+jwt"}, {"iat": 20}, {"lax"}),
        ({"typ": "logout+jwt"}, {}, set()),
        ({"typ": "JWT"}, {"events": {LOGOUT_EVENT: {}}}, set()),
        ({"typ": "at+jwt"}, {"exp": -60}, set()),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
async def test_strict_and_lax_tenant_of_one_issuer_each_go_by_their_own_rules(
    checking: Checking,
    issuer: Issuer,
    headers: dict[str, str],
    claims: dict[str, Any],
    fitting: set[str],
    turned: bool,
) -> None:
    trusts = strict_and_lax(issuer)
    if turned:
        trusts = {name: tuple(reversed(each)) for name, each in trusts.items()}
    now = issuer.signer.claims()["iat"]
    moved = {name: now + value if isinstance(value, int) else value for name, value in claims.items()}
    token = issuer.signer.token(headers=headers, **moved)
    alone = {1: f"{min(fitting, default='')}/alice", 0: "token_expired" if "exp" in claims else "invalid_token"}
    assert await checking.outcome(token, trusts) == alone.get(len(fitting), "invalid_request")
    for tenant in ("strict", "lax"):
        found = await checking.outcome(token, trusts, tenant)
        if not fitting:
            assert found == alone[0]
        else:
            assert found == (f"{tenant}/alice" if tenant in fitting else "policy_denied")


@pytest.fixture
async def http(issuer: Issuer, redis: Redis, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Tenants that share one issuer: by audience, by `match`, and with overlaps of both."""

    def identity(audience: str, **more: Any) -> dict[str, Any]:
        return {"issuer": issuer.url, "audience": audience, "algorithms": ["ES256"], **more}

    config = write_config(
        tmp_path,
        tenant_file("acme", identity("acme-app")),
        tenant_file("globex", identity("globex-app")),
        tenant_file("north", identity("shared", match='claims.region == "north" || claims.region == "all"')),
        tenant_file("south", identity("shared", match='claims.region == "south" || claims.region == "all"')),
    )
    app = create_app(Settings(config_dir=config), redis=redis)
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://t") as http:
        yield http


async def ask(http: httpx2.AsyncClient, token: str, tenant: str | None = None) -> tuple[int, dict[str, Any]]:
    """The status, and the answer without what is another in every answer."""
    headers = {"authorization": f"Bearer {token}"} | ({"ChatKit-Tenant": tenant} if tenant is not None else {})
    answer = await http.get("/v1/chatkit/sessions", headers=headers)
    return answer.status_code, {name: value for name, value in answer.json().items() if name != "request_id"}


async def test_tenants_of_one_issuer_are_told_apart_and_denials_read_alike(
    http: httpx2.AsyncClient, issuer: Issuer
) -> None:
    def token(aud: str | list[str], **claims: Any) -> str:
        return issuer.signer.token(aud=aud, **claims)

    both, everywhere = token(["acme-app", "globex-app"]), token("shared", region="all")
    for mine in (token("acme-app"), token("shared", region="north"), both, everywhere):
        status, told = await ask(http, mine)
        assert status == (400 if mine in (both, everywhere) else 200)
        if status == 400:
            assert (told["code"], told["field"]) == ("invalid_request", "ChatKit-Tenant")
            assert not [name for name in ("acme", "globex", "north", "south") if name in json.dumps(told)]
    for chosen, mine in (("acme", both), ("globex", both), ("north", everywhere), ("south", everywhere)):
        assert (await ask(http, mine, chosen))[0] == 200
    denied = [
        await ask(http, token("shared", region="west")),  # fits no tenant
        await ask(http, token("shared")),  # the match can't even be evaluated
        await ask(http, token("shared", region="north"), "south"),
        await ask(http, token("acme-app"), "globex"),
        await ask(http, token("acme-app"), "no-such-tenant"),
        await ask(http, token("acme-app"), ""),
        await ask(http, token("acme-app"), "ACME"),
        await ask(http, both, "north"),
    ]
    assert denied[0][0] == 403
    assert denied[0][1]["code"] == "policy_denied"
    assert all(each == denied[0] for each in denied), denied
