"""The nginx example, in front of the real service and of upstreams that misbehave."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from api.parts import SERVICE_DB, Issuer, RedisServer, eventually
from api.stack import Service
from deploy.proxied import EXAMPLE, Listener, nginx
from service.http.starters import STARTERS
from service.serve import KEEP_ALIVE
from service.settings import Settings
from support.processes import free_port
from support.tenants import tenant_file, write_config

pytestmark = pytest.mark.process

MINT = "/v1/chatkit/sessions"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with closing(Issuer()) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def proxied(issuer: Issuer, home: Path) -> Iterator[httpx2.Client]:
    """A client of nginx in front of a running service."""
    redis = RedisServer(home / "redis")
    visitors = {"visitors": {"origins": ["https://acme.example"], "quota": {"address_mints": ["2/minute"]}}}
    config = write_config(home, tenant_file("acme", issuer.identity("acme"), **visitors))
    service = Service(
        home / "log",
        config,
        redis.url(SERVICE_DB),
        CHATKIT_MINT_TRUSTED_PROXIES="127.0.0.1",
        CHATKIT_MINT_VISITOR_KEYS="x" * 32,
    )
    try:
        with nginx(home, service.wait().url.removeprefix("http://")) as client:
            yield client
    finally:
        service.close()
        redis.stop()


def bearer(issuer: Issuer) -> dict[str, str]:
    return {"authorization": f"Bearer {issuer.token('acme', 'alice', sid='s1')}"}


def test_a_mint_goes_through_and_is_told_by_the_same_id(proxied: httpx2.Client, issuer: Issuer, home: Path) -> None:
    answer = proxied.post(MINT, headers=bearer(issuer))
    assert answer.status_code == 200, answer.text
    assert answer.json()["client_secret"]
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["server"] == "nginx"
    request_id = answer.headers["x-request-id"]

    def logged() -> str:
        return next((line for line in (home / "chatkit-mint.log").read_text().splitlines() if request_id in line), "")

    line = eventually(logged)
    assert json.loads(line)["client"] == "127.0.0.1"
    assert answer.json()["client_secret"] not in line


def test_whom_a_server_asks_about_is_in_no_log(proxied: httpx2.Client, home: Path) -> None:
    answer = proxied.post("/v1/tenants/acme/users/alice%40example.com/logout")
    assert answer.status_code == 401
    log = home / "chatkit-mint.log"
    eventually(lambda: answer.headers["x-request-id"] in log.read_text())
    assert '"path":"/v1/tenants/acme/users/-"' in log.read_text()
    assert "alice" not in log.read_text()


@pytest.mark.parametrize("path", STARTERS)
def test_a_page_of_an_official_starter_gets_its_secret(proxied: httpx2.Client, issuer: Issuer, path: str) -> None:
    answer = proxied.post(path, headers=bearer(issuer))
    assert answer.status_code == 200, answer.text
    assert answer.json()["client_secret"]


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/livez", "/readyz", "/admin/tenants", "/", "/v1/../metrics", "/v1", "/api/", "/api/create-session/x"],
)
def test_nothing_but_the_api_is_reached(proxied: httpx2.Client, path: str) -> None:
    answer = proxied.get(path)
    assert answer.status_code in (301, 404)
    assert "x-request-id" not in answer.headers  # the service was not asked


def test_a_body_that_is_too_long_is_refused_by_the_service_itself(proxied: httpx2.Client, issuer: Issuer) -> None:
    answer = proxied.post(MINT, headers=bearer(issuer), content=b" " * (64 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_caller_cannot_claim_another_address(proxied: httpx2.Client) -> None:
    """With the claim believed, each request would count for another address, and none be refused."""
    statuses = []
    for n in range(3):
        proxied.cookies.clear()  # somebody new each time
        headers = {"origin": "https://acme.example", "x-forwarded-for": f"10.0.0.{n}"}
        statuses.append(proxied.post(MINT, headers=headers).status_code)
    assert statuses == [200, 200, 429]


def test_the_service_hears_of_the_caller_what_nginx_knows(tmp_path: Path) -> None:
    with closing(Listener()) as upstream, nginx(tmp_path, upstream.address) as client:
        claims = {"x-forwarded-for": "6.6.6.6", "forwarded": "for=6.6.6.6", "x-forwarded-proto": "ftp"}
        assert client.post(MINT, headers=claims).status_code == 200
    (heard,) = upstream.heard
    assert heard["x-forwarded-for"] == "127.0.0.1"
    assert heard["x-forwarded-proto"] == "https"
    assert "forwarded" not in heard
    assert heard.get("connection", "keep-alive") != "close"


def test_a_post_that_may_have_arrived_is_never_sent_twice(tmp_path: Path) -> None:
    with closing(Listener(deaf=True)) as first, closing(Listener(deaf=True)) as second:
        with nginx(tmp_path, first.address, second.address) as client:
            assert client.post(MINT).status_code == 502
        assert len(first.heard) + len(second.heard) == 1


def test_a_replica_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    with closing(Listener()) as second, nginx(tmp_path, f"127.0.0.1:{free_port()}", second.address) as client:
        assert [client.post(MINT).status_code for _ in range(3)] == [200] * 3


def test_its_times_agree_with_the_services() -> None:
    seconds = {name: int(text) for name, text in re.findall(r"^ +(\w+) (\d+)s;$", EXAMPLE.read_text(), re.MULTILINE)}
    (upstream,) = re.findall(r"upstream chatkit_mint \{.*?keepalive_timeout (\d+)s", EXAMPLE.read_text(), re.DOTALL)
    assert int(upstream) < KEEP_ALIVE
    assert seconds["proxy_read_timeout"] > Settings().upstream_deadline + Settings().redis_timeout * 3
