"""Logout tokens that must be refused: each is a good one of a live login with one thing wrong."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from api.stack import Caller
from backchannel.parts import EVENTS, ROUTE, Provider, Stack, accepted, is_in, is_out, refused
from service.identity.claims import LOGOUT_EVENT
from support.forge import as_bytes, encode, sign, unsigned
from support.tokens import Signer

pytestmark = pytest.mark.process

Forge = Callable[[Provider, Caller], str]
NAMES = ("", 7, None, True, ["alice"], {"a": 1}, "a\x00b", "a\nb", "a\x7fb", "x" * 257)
"""No names of anybody. None stands for JSON's null."""


def now(offset: int) -> int:
    return int(time.time()) + offset


def claim(name: str, value: Any) -> Forge:
    """One claim put in, null included."""
    return lambda provider, who: _signed(provider, {**provider.claims(who), name: value})


def at(**offsets: int) -> Forge:
    """Times that many seconds from now."""

    def forge(provider: Provider, who: Caller) -> str:
        times: dict[str, Any] = {name: now(by) for name, by in offsets.items()}
        return provider.logout_token(who, **times)

    return forge


def without(*names: str) -> Forge:
    return lambda provider, who: provider.logout_token(who, **dict.fromkeys(names))


def header(**changes: Any) -> Forge:
    return lambda provider, who: provider.logout_token(who, header=changes)


def rewritten(edit: Callable[[str], str]) -> Forge:
    """The payload's JSON as no library would write it."""
    return lambda provider, who: _signed(provider, edit(json.dumps(provider.claims(who))).encode())


def segments(edit: Callable[[list[str]], str]) -> Forge:
    return lambda provider, who: edit(provider.logout_token(who).split("."))


def _signed(provider: Provider, payload: Any) -> str:
    return sign("ES256", provider.issuer.signer.key, provider.header, payload)


def _by_a_stranger(provider: Provider, who: Caller) -> str:
    return provider.logout_token(who, key=Signer(provider.issuer.url).key)


def _with_its_own_key(provider: Provider, who: Caller) -> str:
    stranger = Signer(provider.issuer.url)
    return provider.logout_token(who, key=stranger.key, header={"jwk": stranger.jwk})


def _keyed_with_the_public_key(provider: Provider, who: Caller) -> str:
    pem = provider.issuer.signer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = encode(as_bytes({**provider.header, "alg": "HS256"}))
    signing_input = f"{head}.{encode(as_bytes(provider.claims(who)))}"
    return f"{signing_input}.{encode(hmac.digest(pem, signing_input.encode(), hashlib.sha256))}"


def _by_another_algorithm(provider: Provider, who: Caller) -> str:
    stranger = Signer(provider.issuer.url, alg="ES384")
    return sign("ES384", stranger.key, {**provider.header, "alg": "ES384"}, provider.claims(who))


def _unsigned(alg: str) -> Forge:
    return lambda provider, who: unsigned({**provider.header, "alg": alg}, provider.claims(who))


def _access_token(provider: Provider, who: Caller) -> str:
    return provider.token(who.tenant, who.subject, sid=who.login, jti="j")


def _id_token(provider: Provider, who: Caller) -> str:
    return provider.token(who.tenant, who.subject, sid=who.login, jti="j", nonce="n", at_hash="h")


def _encrypted(provider: Provider, who: Caller) -> str:
    head, payload, signature = provider.logout_token(who).split(".")
    return f"{head}.{payload}.{signature}.{encode(b'iv')}.{encode(b'tag')}"


EXPECTED = {
    "sub": "sub is no string",
    "sid": "sid is no string",
    "jti": "jti is missing or no string",
}

VARIANTS: dict[str, tuple[Forge, str]] = {
    "no iss": (without("iss"), "iss is none"),
    "another iss": (claim("iss", "https://stranger.example/"), "iss is none"),
    "iss with a slash more": (lambda p, w: p.logout_token(w, iss=p.issuer.url + "/"), "iss is none"),
    "iss in an array": (lambda p, w: p.logout_token(w, iss=[p.issuer.url]), "iss is none"),
    "no aud": (without("aud"), "it is missing"),
    "another aud": (claim("aud", "stranger-app"), "aud is none"),
    "another aud in other letters": (claim("aud", "ACME-APP"), "aud is none"),
    "an empty aud": (claim("aud", []), "aud is neither"),
    "aud of a number": (claim("aud", ["acme-app", 7]), "aud is neither"),
    "aud of an object": (claim("aud", {"acme-app": True}), "aud is neither"),
    "no iat": (without("iat"), "iat is missing"),
    "iat of text": (claim("iat", "1700000000"), "iat is missing or no number"),
    "iat of true": (claim("iat", True), "iat is missing or no number"),
    "iat below zero": (claim("iat", -1), "iat is no time"),
    "iat without end": (
        rewritten(lambda text: text.replace('"iat": ', '"iat": 1e400, "x": ')),
        "payload is not a JSON",
    ),
    "iat in the future": (at(iat=45), "issued in the future"),
    "iat older than max_age": (at(iat=-86_400 - 45), "older than max_age"),
    "no exp": (without("exp"), "exp is missing"),
    "exp is null": (claim("exp", None), "exp is missing or no number"),
    "exp of text": (claim("exp", "4102444800"), "exp is missing or no number"),
    "exp of true": (claim("exp", True), "exp is missing or no number"),
    "exp past the year 9999": (claim("exp", 10**15), "exp is no time"),
    "expired": (at(iat=-200, exp=-45), "expired"),
    "not valid yet": (at(nbf=45), "not valid yet"),
    "no events": (without("events"), "events does not say"),
    "events of text": (claim("events", LOGOUT_EVENT), "events does not say"),
    "events in an array": (claim("events", [LOGOUT_EVENT]), "events does not say"),
    "events of nothing": (claim("events", {}), "events does not say"),
    "events of another kind": (claim("events", {"https://stranger.example/": {}}), "events does not say"),
    "events in other letters": (claim("events", {LOGOUT_EVENT.upper(): {}}), "events does not say"),
    "event of text": (claim("events", {LOGOUT_EVENT: ""}), "events does not say"),
    "event of true": (claim("events", {LOGOUT_EVENT: True}), "events does not say"),
    "event of an array": (claim("events", {LOGOUT_EVENT: []}), "events does not say"),
    "event of null": (claim("events", {LOGOUT_EVENT: None}), "events does not say"),
    "nonce": (claim("nonce", "n-0S6_WzA2Mj"), "no nonce"),
    "nonce of nothing": (claim("nonce", ""), "no nonce"),
    "nonce of null": (claim("nonce", None), "no nonce"),
    "no jti": (without("jti"), "jti is missing"),
    "neither sub nor sid": (without("sub", "sid"), "neither sub nor sid"),
    **{f"{name} is {str(value)[:12]!r}": (claim(name, value), EXPECTED[name]) for name in EXPECTED for value in NAMES},
    "typ of a JWT": (header(typ="JWT"), "typ is not"),
    "typ of an access token": (header(typ="at+jwt"), "typ is not"),
    "typ of another event": (header(typ="secevent+jwt"), "typ is not"),
    "no typ": (header(typ=None), "typ is not"),
    "typ of a number": (header(typ=7), "typ is not"),
    "typ in an array": (header(typ=["logout+jwt"]), "typ is not"),
    "typ twice removed": (header(typ="application/application/logout+jwt"), "typ is not"),
    "unknown kid": (header(kid="k2"), "no key of the issuer"),
    "kid of a number": (header(kid=7), "kid is not"),
    "kid too long": (header(kid="k" * 257), "kid is not"),
    "alg none": (_unsigned("none"), "no signature"),
    "alg None": (_unsigned("None"), "no signature"),
    "alg left out": (header(alg=None), "header names no alg"),
    "alg of another key": (_by_another_algorithm, "alg is not allowed"),
    "alg HS256 keyed with the public key": (_keyed_with_the_public_key, "alg is not allowed"),
    "a stranger's signature": (_by_a_stranger, "no key of the issuer"),
    "a key of its own": (_with_its_own_key, "no key of the issuer"),
    "signature cut off": (segments(lambda s: f"{s[0]}.{s[1]}."), "no signature"),
    "signature of zeros": (segments(lambda s: f"{s[0]}.{s[1]}.{encode(bytes(64))}"), "no key of the issuer"),
    "claims put under another signature": (
        lambda p, w: p.logout_token(w).rpartition(".")[0] + "." + p.logout_token(w).rpartition(".")[2],
        "no key of the issuer",
    ),
    "crit": (header(crit=["exp"]), "critical extension"),
    "b64": (header(b64=False), "critical extension"),
    "encrypted": (_encrypted, "5 segments"),
    "two segments": (segments(lambda s: f"{s[0]}.{s[1]}"), "2 segments"),
    "padded": (segments(lambda s: f"{s[0]}.{s[1]}.{s[2]}=="), "is not "),
    "a space at its end": (lambda p, w: p.logout_token(w) + " ", "is not base64url"),
    "sub twice": (rewritten(lambda text: text[:-1] + ', "sub": "bob"}'), "payload is not a JSON object"),
    "events twice": (rewritten(lambda text: text[:-1] + ', "events": {}}'), "payload is not a JSON object"),
    "payload of an array": (lambda p, w: _signed(p, [p.claims(w)]), "payload is not a JSON object"),
    "payload of no JSON": (rewritten(lambda text: text + "x"), "payload is not a JSON object"),
    "no token at all": (lambda _p, _w: "hunter2", "1 segments"),
    "over 16 KiB": (claim("padding", "x" * 16_384), "over 16 KiB"),
    "access token": (_access_token, "typ is not"),
    "ID token": (_id_token, "typ is not"),
}


@pytest.fixture(scope="module")
def victim(whole_stack: Stack) -> Caller:
    """Logged in, and to stay so through all of them."""
    victim = whole_stack.someone()
    victim.minted()
    return victim


@pytest.mark.parametrize(("forge", "reason"), VARIANTS.values(), ids=VARIANTS)
def test_refused_without_effect_and_without_a_reason(stack: Stack, victim: Caller, forge: Forge, reason: str) -> None:
    live = set(victim.live())
    token = forge(stack.provider, victim)
    answer = stack.post(token)
    refused(answer)
    # Why is for the log alone.
    assert answer.json()["detail"] == answer.json()["error_description"] == "The logout token is not valid here"
    line = stack.service.line(answer)
    assert reason in line["reason"]
    assert (line["route"], line["outcome"]) == (ROUTE, "invalid_request")
    assert token not in str(line)
    is_in(victim)
    assert live < set(victim.live())


def test_nothing_of_all_that_reached_the_authority(stack: Stack, victim: Caller) -> None:
    assert {session["status"] for session in stack.upstream.of(f"acme:{victim.subject}")} == {"active"}
    stack.logged_out(victim)
    is_out(victim)


@pytest.mark.parametrize("tenant", ["noexp", "notyp"])
@pytest.mark.parametrize("forge", [_access_token, _id_token])
def test_other_kinds_of_token_are_none_where_a_switch_is_on(stack: Stack, tenant: str, forge: Forge) -> None:
    alice = stack.someone(tenant)
    refused(stack.post(forge(stack.provider, alice)))
    is_in(alice)


TWINS: dict[str, Forge] = {
    "claim": claim("sub_type", "x"),
    "times at their edge": at(iat=20, exp=-20, nbf=20),
    "old, but not too old": at(iat=-86_000),
    "name of 256": lambda p, w: p.logout_token(w, jti="x" * 256),
    "name in any script": lambda p, w: p.logout_token(w, jti="żółw 🐢"),
    "header": header(x5t="x"),
    "events among others": claim("events", {**EVENTS, "https://stranger.example/": {"a": 1}}),
    "rewritten": rewritten(lambda text: text.replace(", ", " ,\n")),
    "segments": segments(".".join),
    "signed": lambda p, w: _signed(p, p.claims(w)),
    "kid left out": header(kid=None),
}


@pytest.mark.parametrize("forge", TWINS.values(), ids=TWINS)
def test_a_good_token_of_the_same_make_is_accepted(stack: Stack, forge: Forge) -> None:
    alice = stack.someone()
    session = alice.minted()
    accepted(stack.post(forge(stack.provider, alice)))
    is_out(alice)
    stack.cancelled(session)


@pytest.mark.parametrize("tenant", ["acme", "noexp", "notyp"])
def test_a_logout_token_is_no_access_token(stack: Stack, tenant: str) -> None:
    alice = stack.someone(tenant)
    for shown in ({}, {"typ": "JWT"}, {"typ": None}):
        token = stack.provider.logout_token(alice, header=shown)
        answer = stack.service.http.post("/v1/chatkit/sessions", headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        assert "client_secret" not in answer.text
