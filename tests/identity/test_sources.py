"""Where keys may come from, and what a source's answer must say."""

import json
import os
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from identity.parts import Checking, Clock, Issuer, by_issuer, trust
from service.identity import keys
from service.identity.keys import MIN_FRESH, RETRY, KeyCache
from service.observe.metrics import Metrics
from service.principal import Discovery, JwksFile, JwksUrl, SharedSecret
from support.tokens import Signer


class Network:
    """Answers in place of hosts that a test can't be: what was asked for, and documents by URL."""

    def __init__(self, **documents: object) -> None:
        self.asked: list[str] = []
        self.documents = documents

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        document = self.documents.get(str(request.url))
        return httpx2.Response(200 if document else 404, json=document)


def cache_on(network: Network) -> KeyCache:
    return KeyCache(httpx2.MockTransport(network), Metrics(), clock=Clock())


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example/keys",
        "http://127.0.0.1.login.example/keys",
        "http://127.0.0.1@login.example/keys",
        "http://localhost.example/keys",
        "http://0.0.0.0/keys",
        "http://169.254.169.254/keys",
        "http://[::2]/keys",
        "ftp://127.0.0.1/keys",
        "file:///etc/passwd",
        "//login.example/keys",
        "keys",
        "",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("discovered", [True, False])
async def test_keys_are_asked_for_over_https_or_on_loopback_alone(url: str, discovered: bool) -> None:
    configuration = "https://login.example/c"
    network = Network(**{configuration: {"issuer": "i", "jwks_uri": url}, url: Signer().jwks})
    source = Discovery("i", configuration) if discovered else JwksUrl(url)
    cache = cache_on(network)
    await cache.warm({source})
    assert network.asked == ([configuration] if discovered else [])
    assert cache.missing() == [source]


@pytest.mark.parametrize(
    "url", ["https://keys.example/k", "http://127.0.0.1:9/k", "http://localhost/k", "http://[::1]/k"]
)
async def test_keys_may_lie_on_another_host(url: str) -> None:
    """As Google's do."""
    configuration = "http://127.0.0.1/c"
    network = Network(**{configuration: {"issuer": "i", "jwks_uri": url}, url: Signer().jwks})
    cache = cache_on(network)
    await cache.warm({Discovery("i", configuration)})
    assert network.asked == [configuration, url]
    assert not cache.missing()


async def test_issuer_elsewhere_may_not_send_us_to_our_own_loopback() -> None:
    configuration, inside = "https://login.example/c", "http://127.0.0.1:6379/k"
    network = Network(**{configuration: {"issuer": "i", "jwks_uri": inside}, inside: Signer().jwks})
    cache = cache_on(network)
    await cache.warm({Discovery("i", configuration)})
    assert network.asked == [configuration]


@pytest.mark.parametrize("named", ["", "https://evil.example/", None, 7, ["{url}"], "{url}/", "{URL}"])
async def test_configuration_of_another_issuer_is_refused(checking: Checking, issuer: Issuer, named: object) -> None:
    good = issuer.configuration
    if isinstance(named, str):
        named = named.replace("{url}", issuer.url).replace("{URL}", issuer.url.upper())
    issuer.configuration = {**good, "issuer": named}  # type: ignore[dict-item]
    issuer.publish(issuer.signer)
    trusts = by_issuer(trust(issuer.url, issuer.source))
    assert await checking.outcome(issuer.signer.token(), trusts) == "issuer_unavailable"
    assert issuer.asked() == 0


@pytest.mark.parametrize("jwks_uri", [None, 7, "", []])
async def test_configuration_without_a_place_of_keys_is_refused(
    checking: Checking, issuer: Issuer, jwks_uri: object
) -> None:
    issuer.configuration = {**issuer.configuration, "jwks_uri": jwks_uri}  # type: ignore[dict-item]
    issuer.publish(issuer.signer)
    trusts = by_issuer(trust(issuer.url, issuer.source))
    assert await checking.outcome(issuer.signer.token(), trusts) == "issuer_unavailable"


async def test_key_file_is_read_again_when_it_changes(checking: Checking, issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    trusts = by_issuer(trust(issuer.url, JwksFile(path)))
    old, new = issuer.signer, issuer.new_signer()
    assert await checking.outcome(old.token(), trusts) == "issuer_unavailable"
    path.write_text(json.dumps(old.jwks))
    checking.clock.jump(RETRY + 1)
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    for broken in ("", "{", '{"keys": []}'):
        path.write_text(broken)
        checking.clock.jump(MIN_FRESH)
        await checking.refreshed()
        assert await checking.outcome(old.token(), trusts) == "acme/alice"
    path.unlink()
    checking.clock.jump(MIN_FRESH)
    await checking.refreshed()
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    path.write_text(json.dumps(new.jwks))
    checking.clock.jump(MIN_FRESH)
    await checking.refreshed()
    assert await checking.outcome(old.token(), trusts) == "invalid_token"
    assert await checking.outcome(new.token(), trusts) == "acme/alice"


async def test_key_file_put_in_place_of_another_of_the_same_age_and_size_is_read(
    checking: Checking, issuer: Issuer, tmp_path: Path
) -> None:
    """As image layers and `cp -p` leave them: one time for all files, and two ES256 sets have one size."""
    path, next_path = tmp_path / "jwks.json", tmp_path / "next.json"
    trusts = by_issuer(trust(issuer.url, JwksFile(path)))
    old, new = Signer(issuer.url, kid="a"), Signer(issuer.url, kid="b")
    for place, signer in ((path, old), (next_path, new)):
        place.write_text(json.dumps(signer.jwks))
        os.utime(place, (0, 0))
    assert await checking.outcome(old.token(), trusts) == "acme/alice"
    next_path.replace(path)
    checking.clock.jump(MIN_FRESH)
    await checking.refreshed()
    assert await checking.outcome(new.token(), trusts) == "acme/alice"


def test_secret_is_in_no_name_of_a_source() -> None:
    secret = "hunter2" * 8
    assert secret not in keys.describe(SharedSecret(SecretStr(secret)))
