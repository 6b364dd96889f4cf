"""What a new user is likely to do wrong: each ends in one line that says what to do, and never in a traceback."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.processes import ROOT, Process, clean_environ
from support.zygote import Call, Ran, zygote

pytestmark = pytest.mark.process

KEY = "an-admin-key-of-thirty-two-characters"
Run = Callable[..., Process]
PASSWORD = "hunter2/with#signs"
NOBODY = 65_534
FILE = """\
tenant: acme
identity:
  - issuer: https://login.example.com/
    audience: acme-app
    algorithms: [ES256]
upstream: {kind: openai}
session:
  workflow: {id: wf_acme}
"""


@dataclass(frozen=True)
class Mistake:
    """A call, what its last words must match, and how it ends. `{home}` and `{port}` stand for the test's own."""

    arguments: Sequence[str]
    says: str
    code: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)
    written: str = ""
    prepare: Callable[[Path], None] = lambda _home: None
    as_nobody: bool = False
    out: str | None = None


def tenants(**files: str) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        (home / "config" / "tenants").mkdir(parents=True)
        for name, text in files.items():
            (home / "config" / "tenants" / name.replace("_", ".")).write_text(text)

    return write


def locked(home: Path) -> None:
    (home / "locked").mkdir(mode=0o700)
    home.chmod(0o755)


def no_key(home: Path) -> None:
    (home / "identity-provider.pem").write_text("no key at all")


SERVE = ("serve",)
CHECK = ("check", "{home}/config")
TOKEN = ("token", "--tenant", "acme", "--user", "alice", "--dir", "{home}")
DEV = ("dev", "--dir", "{home}", "--port", "0", "--ops-port", "0", "--idp-port", "0")

USAGE = {
    "a command that is none": Mistake(["serf"], r"'serf'\. Did you mean 'serve'\? Usage: chatkit-mint --help", 2),
    "an option that is none": Mistake(["check", "--yaml"], r"--yaml.* Usage: chatkit-mint check --help", 2),
    "an option left out": Mistake(["token", "--tenant", "acme"], r"chatkit-mint token: Missing option '--user'\.", 2),
    "a claim without a value": Mistake([*TOKEN, "--claim", "plan"], "'plan' is not NAME=VALUE", 2),
    "claims in a file that is none": Mistake(
        ["explain", "--tenant", "acme", "--claims", "claims.json"], r"'claims.json': No such file", 2
    ),
    "claims that are no JSON": Mistake(
        ["explain", "--tenant", "acme", "--claims", "-"], "--claims: not JSON: .*line 1", 2, written='{"sub": alice}'
    ),
    "claims without a sub": Mistake(["explain", "--tenant", "acme", "--claims", "-"], "name no `sub`", written="{}"),
    "a fault that is none": Mistake(["authority", "--fault", "x=1"], r"known are latency", 2),
}
TENANT = {
    "token": Mistake(["token", "--tenant", "acmee", "--user", "alice"], "no tenant 'acmee'; there are: acme, globex"),
    "explain": Mistake(["explain", "--tenant", "acmee", "--claims", "-"], "there are: acme", written='{"sub": "a"}'),
    "doctor": Mistake(["doctor", "--tenant", "acmee"], "no tenant 'acmee'; there are: acme, globex"),
    "a tenant of another provider": Mistake(
        TOKEN,
        r"trusts https://login\.example\.com/, not the development identity provider: add http://127",
        environ={"CHATKIT_MINT_CONFIG_DIR": "{home}/config"},
        prepare=tenants(acme_yaml=FILE.replace("openai", "authority")),
    ),
}
OPERATOR = {
    "no admin key": Mistake(["sessions", "--tenant", "acme"], "^set CHATKIT_MINT_ADMIN_KEY"),
    "a short admin key": Mistake(
        ["unblock", "--tenant", "acme"], "at least 32 characters", environ={"CHATKIT_MINT_ADMIN_KEY": "hunter2"}
    ),
    "a revocation without a yes": Mistake(["revoke", "--tenant", "acme"], "say --yes"),
    "a service that does not run": Mistake(
        ["sessions", "--tenant", "acme", "--url", "http://127.0.0.1:{free}"],
        "nobody answers at http://127.* is the service running",
        environ={"CHATKIT_MINT_ADMIN_KEY": KEY},
    ),
}
SETTINGS = {
    name: Mistake(SERVE, says, environ=environ)
    for name, says, environ in [
        ("a variable misspelt", "WORKER: .*did you mean CHATKIT_MINT_WORKERS", {"CHATKIT_MINT_WORKER": "2"}),
        ("a number that is none", "PORT: is a whole number", {"CHATKIT_MINT_PORT": "eighty"}),
        ("a truth that is none", "TRACES: is true or false", {"CHATKIT_MINT_TRACES": "maybe"}),
        ("a level that is none", "LOG_LEVEL: is 'debug', 'info'", {"CHATKIT_MINT_LOG_LEVEL": "INFO"}),
        ("a file of a secret that is gone", "can't read /no/such", {"CHATKIT_MINT_ADMIN_KEY_FILE": "/no/such/key"}),
        ("a Redis URL without a scheme", "starts with redis://", {"CHATKIT_MINT_REDIS_URL": "localhost:6379"}),
        ("a password not encoded", "percent-encoded", {"CHATKIT_MINT_REDIS_URL": f"redis://:{PASSWORD}@host"}),
        ("a secret that came out empty", "KEYS: is set but empty; give it", {"CHATKIT_MINT_VISITOR_KEYS": ""}),
        ("an API key of two lines", "is there a line break", {"OPENAI_API_KEY": "sk-hunter2\nsk"}),
        ("a base URL without a scheme", "starts with https://", {"OPENAI_BASE_URL": "api.openai.com"}),
        ("an audit file that can't be", "AUDIT_FILE: can't write", {"CHATKIT_MINT_AUDIT_FILE": "/no/such/audit"}),
    ]
}
SOCKETS = {
    "the public port taken": Mistake(
        SERVE,
        r"can't listen on 127\.0\.0\.1:{port}: Address already in use; choose another with CHATKIT_MINT_PORT$",
        environ={"CHATKIT_MINT_PORT": "{port}"},
    ),
    "the operations port taken": Mistake(
        SERVE, "choose another with CHATKIT_MINT_OPS_PORT$", environ={"CHATKIT_MINT_OPS_PORT": "{port}"}
    ),
    "one port for both": Mistake(
        SERVE,
        "choose another with CHATKIT_MINT_OPS_PORT$",
        environ={"CHATKIT_MINT_PORT": "{free}", "CHATKIT_MINT_OPS_PORT": "{free}"},
    ),
    "dev's port taken": Mistake([*DEV, "--port", "{port}"], "choose another with --port$"),
    "dev's operations port taken": Mistake([*DEV, "--ops-port", "{port}"], "choose another with --ops-port$"),
    "dev's provider's port taken": Mistake([*DEV, "--idp-port", "{port}"], "choose another with --idp-port$"),
    "the authority's port taken": Mistake(
        ["authority", "--dir", "{home}", "--port", "{port}"], "choose another with --port$"
    ),
    "a host that is no address of ours": Mistake(
        SERVE, "must be an address of this machine", environ={"CHATKIT_MINT_HOST": "192.0.2.1"}
    ),
    "a host that is no name": Mistake(
        SERVE, "must be an address of this machine", environ={"CHATKIT_MINT_HOST": "no..host"}
    ),
    "two ports taken, with workers": Mistake(
        SERVE, "CHATKIT_MINT_PORT$", environ={"CHATKIT_MINT_PORT": "{port}", "CHATKIT_MINT_WORKERS": "2"}
    ),
}
PLACES = {
    "no such directory": Mistake(
        SERVE,
        r"/no/config/tenants:1:1: there is no such directory; CHATKIT_MINT_CONFIG_DIR",
        environ={"CHATKIT_MINT_CONFIG_DIR": "/no/config"},
    ),
    "the folder of the tenants itself": Mistake(
        ["check", "config/tenants"], r"tenants/tenants:1:1: .*one above `tenants/`", code=1
    ),
    "an empty directory": Mistake(CHECK, r"tenants:1:1: holds no tenant file \(\*\.yaml\)", prepare=tenants()),
    "a place for Redis that can't be": Mistake(
        SERVE, "set CHATKIT_MINT_REDIS_DIR, or", environ={"CHATKIT_MINT_REDIS_DIR": "/proc/no/such"}
    ),
    "a development key that is none": Mistake(
        TOKEN, r"identity-provider\.pem holds no EC key; delete it", prepare=no_key
    ),
    "a directory of somebody else's, token": Mistake(
        [*TOKEN[:-1], "{home}/locked"], "signing key in .*Permission denied; choose", prepare=locked, as_nobody=True
    ),
    "a directory of somebody else's, dev": Mistake(
        [*DEV, "--dir", "{home}/locked"], "keys in .*Permission denied; choose", prepare=locked, as_nobody=True
    ),
    "a directory of somebody else's, serve": Mistake(
        SERVE,
        "Permission denied; set CHATKIT_MINT_REDIS_DIR",
        environ={"CHATKIT_MINT_REDIS_DIR": "{home}/locked/redis"},
        prepare=locked,
        as_nobody=True,
    ),
    "a port for root alone": Mistake(
        SERVE,
        "Permission denied; choose another with CHATKIT_MINT_PORT$",
        environ={"CHATKIT_MINT_PORT": "80", "CHATKIT_MINT_REDIS_URL": "redis://127.0.0.1:1"},
        as_nobody=True,
    ),
    "a disk that is full": Mistake(["schema"], "No space left on device", out="/dev/full"),
}
CHANGES: list[tuple[str, str, str | tuple[str, str]]] = [
    ("no API key", r"6:1: no API key: set OPENAI_API_KEY", ""),
    ("a tab", r"8:1: not valid YAML.*; a tab\? Indent with spaces", ("  workflow", "\tworkflow")),
    ("too little space", r"4:4: .*does the indentation match", ("    audience", "   audience")),
    ("no space after a colon", r"5:5: .*is a space missing after a colon", ("audience: ", "audience:")),
    ("a colon in a text", r"9:\d+: .*put text with a colon in it in quotes", "user: acme:claims.sub: x\n"),
    ("a key twice", r"9:1: `tenant` stands here a second time", "tenant: globex\n"),
    ("a key misspelt", r"4:5: unknown key `audiance`; did you mean `audience`\?", ("audience:", "audiance:")),
    ("one in place of a list", r"5:5: `algorithms`: should be a list", ("[ES256]", "ES256")),
    ("text in place of a map", r"8:3: .*`workflow`; it is a map, whose fields are", ("{id: wf_acme}", "wf_acme")),
    ("= for ==", r"10:15: .*compare with ==$", "rules:\n  - {name: a, when: claims.plan = 1, deny: no}\n"),
    ("a name that is none", r"it may speak of claims and tenant", "user: claim.sub\n"),
    ("a text for an expression", r"`\$\{…\}` is for texts", "user: '${claims.sub}'\n"),
    ("a template misspelt", r"9:1: there is no template 'standrad'", "extends: standrad\n"),
    (
        "an origin with a slash",
        r"`origins`: should be an origin: https",
        "cors: {origins: ['https://a.example/']}\n",
    ),
    (
        "a rate in words",
        r"`mints`: should be a number of mints in a time: 10/minute",
        "quota: {mints: [5 a day]}\n",
    ),
    ("keys over http", r"3:5: keys are fetched over https", ("https://login", "http://login")),
    ("a secret in the file", r"6:26: a secret is never written into", ("openai}", "openai, api_key: sk-hunter2}")),
    ("nothing at all", r"1:1: holds no map of settings", (FILE, "")),
]
FILES = {
    name: (says, FILE + change if isinstance(change, str) else FILE.replace(*change)) for name, says, change in CHANGES
}


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def check_last_words(ran: Ran, says: str, code: int) -> None:
    """Hold against what every mistake has in common, and what this one says."""
    assert ran.code == code, ran
    assert "Traceback" not in ran.out + ran.err
    assert "hunter2" not in ran.out + ran.err
    [line] = [line for line in (ran.err or ran.out).splitlines() if line and not re.match(r"\d+ mistakes?; ", line)]
    assert re.search(says, line), line


ALL = {**USAGE, **TENANT, **OPERATOR, **SETTINGS, **SOCKETS, **PLACES}


@pytest.mark.parametrize("name", ALL)
def test_a_mistake_is_one_line_that_says_what_to_do(taken: int, free: int, tmp_path: Path, name: str) -> None:
    mistake = ALL[name]
    if mistake.as_nobody and os.getuid():
        pytest.skip("only root can be somebody else")
    mistake.prepare(tmp_path)

    def filled(text: str) -> str:
        for mark, value in (("{home}", tmp_path), ("{port}", taken), ("{free}", free)):
            text = text.replace(mark, str(value))
        return text

    environ = clean_environ(
        CHATKIT_MINT_PORT="0",
        CHATKIT_MINT_OPS_PORT="0",
        CHATKIT_MINT_REDIS_DIR=str(tmp_path / "redis"),
        CHATKIT_MINT_VISITOR_KEYS="k" * 32,  # the example tenant has visitors
    )
    ran = zygote().run(
        Call(
            [filled(each) for each in mistake.arguments],
            {**environ, **{variable: filled(value) for variable, value in mistake.environ.items()}},
            written=mistake.written,
            user=NOBODY if mistake.as_nobody else None,
            out=mistake.out,
        )
    )
    check_last_words(ran, filled(mistake.says), mistake.code)


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_tenant_file_has_its_place_and_says_what_would_be_right(tmp_path: Path, name: str) -> None:
    says, text = FILES[name]
    tenants(acme_yaml=text)(tmp_path)
    environ = {} if name == "no API key" else {"OPENAI_API_KEY": "sk-hunter2"}
    ran = zygote().run(Call(["check", str(tmp_path / "config")], clean_environ(**environ)))
    assert (ran.code, "Traceback" in ran.err, "hunter2" in ran.out) == (1, False, False)
    assert re.search(rf"^{re.escape(str(tmp_path))}/config/tenants/acme\.yaml:.*{says}", ran.out, re.MULTILINE), ran.out


def test_a_file_that_would_not_be_read_and_two_of_one_tenant(tmp_path: Path) -> None:
    tenants(acme_yaml=FILE, acme2_yaml=FILE, globex_yml=FILE)(tmp_path)
    ran = zygote().run(Call(["check", str(tmp_path / "config")], clean_environ(OPENAI_API_KEY="sk-hunter2")))
    assert re.search(r"globex\.yml:1:1: is not read: files end in \.yaml; rename it", ran.out)
    assert re.search(r"acme2\.yaml:1:1: acme\.yaml is tenant 'acme' already", ran.out)


def test_a_python_without_the_packages_says_so() -> None:
    """`python3 -m service` in a fresh clone, before `make setup`."""
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "service", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1), ran.stderr
    assert "In a clone: make setup, then .venv/bin/chatkit-mint" in ran.stderr


def test_redis_that_is_not_there_is_one_line_and_the_service_waits_for_it(run: Run, tmp_path: Path) -> None:
    tenants(acme_yaml=FILE.replace("openai", "authority"))(tmp_path)
    service = run(
        "serve",
        CHATKIT_MINT_CONFIG_DIR=str(tmp_path / "config"),
        CHATKIT_MINT_REDIS_URL=f"redis://:{PASSWORD.partition('/')[0]}@127.0.0.1:1",
        CHATKIT_MINT_PORT="0",
        CHATKIT_MINT_OPS_PORT="0",
    )
    line = json.loads(service.wait_for(r'.*"redis_not_reached".*')[0])
    assert line["reason"] == "Redis: ConnectionError (connection refused)"
    assert "is CHATKIT_MINT_REDIS_URL right?" in line["hint"]
    service.wait_for('"event":"listening"')
    assert service.text().count("redis_not_reached") == 1
    assert "hunter2" not in service.text()
