"""Every fault of an upstream: what the caller is told, how often upstream was asked, and what was counted."""

import datetime as dt
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from structlog.testing import capture_logs

from faults.stack import KEY, Stack, running, tenant
from faults.upstream_faults import CANCELLED, FAULTS, FULL, MINTED, NEVER_SENT, SECRET, Fault
from support.scripted import Upstream, says, scripted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "pem"
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.upstream.retry.FIRST", 0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everything(
    redis_socket: Path, certificate: ssl.SSLContext, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stack, dict[str, Upstream]]]:
    """One service, with a tenant and an upstream for each fault: no breaker hears of another's."""
    async with AsyncExitStack() as ends:
        redis = await ends.enter_async_context(Redis(unix_socket_path=str(redis_socket)))
        # Bound, and nobody listens: a port that is merely free may be the next server's.
        nobody = ends.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        upstreams, tenants = {}, []
        for number, fault in enumerate(FAULTS):
            context = certificate if fault.scheme == "https" else None
            server = await ends.enter_async_context(scripted(*fault.plays, ssl=context))
            upstreams[fault.name] = server
            port = nobody.getsockname()[1] if fault is NEVER_SENT else server.port
            url = f"{fault.scheme}://127.0.0.1:{port}/v1"
            tenants.append(tenant(f"fault-{number}", url, retry_creates=fault.opted_in))
        stack = await ends.enter_async_context(running(redis, tmp_path_factory.mktemp("faults"), *tenants))
        yield stack, upstreams


COUNTED = ("upstream_calls", "upstream_retries", "orphans", "upstream_breaker_opens")


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_is_told_retried_and_counted_as_the_contract_says(
    fault: Fault, everything: tuple[Stack, dict[str, Upstream]]
) -> None:
    stack, upstreams = everything
    name = f"fault-{FAULTS.index(fault)}"
    before = await stack.all_counted()
    with capture_logs() as lines:
        answer = await stack.mint(name)
    after = await stack.all_counted()
    calls, retries, orphans, opens = [after[each] - before[each] for each in COUNTED]
    body = answer.json()
    assert (answer.status_code, body.get("code")) == fault.told, body
    assert ("retry-after" in answer.headers) is fault.wait
    assert len(upstreams[fault.name].received) == fault.requests
    assert (calls, retries, opens) == (fault.calls, fault.retries, {})
    assert orphans.total() == fault.orphans
    (line,) = [line for line in lines if line["event"] == "request"]
    creates = sum(number for call, number in fault.calls.items() if call.startswith("create"))
    assert line["upstream_tries"] == creates or fault.calls.items() >= CANCELLED.items()
    assert KEY not in f"{lines} {answer.text}"
    assert SECRET not in str(lines)
    if fault.told == MINTED:
        assert (body["id"], body["client_secret"]) == ("cksess_1", SECRET)
        least = 590 if "expires_at" in fault.name else 0  # where it can't be believed, from now
        assert time.time() + least < body["expires_at"] <= time.time() + 661
        assert body["workflow"]["id"] == f"wf_{name}"
        assert set(body) == {*FULL, "max_requests_per_1_minute", "chatkit_configuration"}
    else:
        assert SECRET not in answer.text


async def test_the_caller_is_told_when_upstream_wants_to_be_asked_again(redis: Redis, tmp_path: Path) -> None:
    hints: list[tuple[dict[str, str], str]] = [
        ({"retry_after": "3600"}, "60"),
        ({"retry_after": "7"}, "7"),
        ({"retry_after_ms": "4500"}, "5"),
        ({}, "5"),
    ]
    async with AsyncExitStack() as ends:
        tenants, told = [], {}
        for status in (429, 503):
            for headers, wait in hints:
                upstream = await ends.enter_async_context(scripted(*[says(status, **headers)] * 3))
                name = f"of-{upstream.port}"
                tenants.append(tenant(name, f"http://127.0.0.1:{upstream.port}/v1"))
                told[name] = wait
        stack = await ends.enter_async_context(running(redis, tmp_path, *tenants))
        assert {name: (await stack.mint(name)).headers["retry-after"] for name in told} == told


async def test_a_404_is_explained_to_the_operator_alone(redis: Redis, tmp_path: Path) -> None:
    async with (
        scripted(says(404, {"error": {"code": "not_found"}})) as upstream,
        running(redis, tmp_path, tenant("acme", f"http://127.0.0.1:{upstream.port}/v1")) as stack,
    ):
        with capture_logs() as lines:
            answer = await stack.mint()
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (
        "404 not_found: nearly always, the API key belongs to another project than workflow wf_acme" in line["reason"]
    )
    assert "wf_acme" not in answer.text
    assert "404" not in answer.text
