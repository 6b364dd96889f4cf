"""Follow README and docs/quickstart.md literally: save the files, type the commands, look at what is printed."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from support.pages import blocks, save
from support.terminal import Terminal

README, QUICKSTART = "README.md", "docs/quickstart.md"
PORTS = (8080, 9464, 8081, 8082, 8090, 8180, 9564, 5173)
"""Those that the pages name."""
STAYING = {
    "make run": "chatkit-mint is ready",
    "chatkit-mint authority": "authority is ready",
    "chatkit-mint serve": '"event":"listening"',
    "http.server": "Serving HTTP",
}
"""Commands that stay, and what they print when they are ready."""
TOLD = {
    2: [r'"object":"chatkit.session"', r'"client_secret":"ek_', r'"max_files":5'],
    3: [r'\{"cancelled":1,"pending":0\}', r'"code":"login_revoked"'],
    4: [r"acme: granted", r"rule 'pro uploads' holds"],
    6: [r"shop: fine\. Tenants: shop\. 2 tests passed\.", r"shop: granted", r"minted and cancelled", r"\b0 wrong\."],
}
"""What the quickstart's blocks print, by number: what the text around them says."""
MINT_AS_THE_PAGE = """curl -sS -i -X POST http://127.0.0.1:8180/v1/chatkit/sessions \\
  -H "Authorization: Bearer $(curl -sS http://127.0.0.1:5173/auth.js | cut -d"'" -f2)" \\
  -H "Origin: http://127.0.0.1:5173" """
UP = """import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])"""
"""Bring the loopback device up (SIOCSIFFLAGS), then become another command."""


def own_network() -> list[str] | None:
    """Return what starts a command on a loopback that nobody else has; None where the system doesn't let us."""
    for extra in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *extra, "--net", sys.executable, "-c", UP]
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=20, check=False).returncode == 0:
                return command
        except OSError:
            return None
    return None


def taken() -> list[int]:
    """Those of the pages' ports that somebody listens on."""
    found = []
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


def walk(terminal: Terminal, folder: Path, *, setup: float = 60.0) -> Iterator[tuple[str, float]]:
    """Do all that the pages say, in a clone in *folder*; tell each step and its seconds as it is done.

    *setup* is how long the first command may take, which installs. Fails with what was typed and printed.
    """
    (first,) = (each.text for each in blocks(README, "sh") if each.text == "make run\n")
    pages = blocks(QUICKSTART, "sh")
    assert pages[0].text == first, "the quickstart begins as the README does: it is typed once"
    save(QUICKSTART, folder)
    for block in pages:
        *before, last = block.text.strip().split("\n")
        ready = next((told for command, told in STAYING.items() if command in last), None)
        if ready is None:
            yield _timed(block.text, partial(_typed, terminal, block.text, block.number))
            continue
        if before:
            yield _timed("\n".join(before), partial(_typed, terminal, "\n".join(before), 0))
        within = setup if block.number == 1 else 60.0
        yield _timed(last, partial(terminal.serve, last, ready, within=within))
    yield _timed("the page's own mint", partial(_mint, terminal))


def _timed(text: str, step: Callable[[], object]) -> tuple[str, float]:
    started = time.monotonic()
    step()
    return text.strip(), time.monotonic() - started


def _typed(terminal: Terminal, text: str, number: int) -> None:
    code, printed = terminal.type(text)
    assert code == 0, f"exit code {code}: {text}\n{printed}"
    missing = [each for each in TOLD.get(number, ()) if not re.search(each, printed)]
    assert not missing, f"{missing} not in what was printed by {text}\n{printed}"


def _mint(terminal: Terminal) -> None:
    code, printed = terminal.type("curl -sS http://127.0.0.1:5173/\n" + MINT_AS_THE_PAGE)
    assert code == 0, printed
    for expected in ("createClient", "HTTP/1.1 200", "access-control-allow-origin: http://127.0.0.1:5173", '"wf_shop"'):
        assert expected in printed, f"no {expected}:\n{printed}"
