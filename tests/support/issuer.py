"""An identity provider in a process of its own, which does whatever goes wrong with real ones.

`python issuer.py PORT` (0: any) prints the port it listens on. `POST /control` merges a JSON object into the state,
`GET /control` tells how often each path was asked for and how many requests wait in a hang. Standard library alone,
so that it starts within a tenth of a second.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

JWKS = "/jwks.json"
DISCOVERY = "/.well-known/openid-configuration"
ELSEWHERE = "/elsewhere.json"
"""Where redirects lead: a good set, so that whoever follows gets keys."""

DRIP = 0.02
"""Seconds between bytes; a set has over 200 of them."""
LARGE = 5 * 1024 * 1024
CONTROL = "/control"


class State:
    """What is published, what goes wrong, and what was asked for."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.faults: dict[str, str] = {}
        self.latency = 0.0
        self.max_age: int | None = None
        self.asked: Counter[str] = Counter()
        self.hanging = 0


def head(status: str, length: int, *extra: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {length}", *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(body: bytes, status: str = "200 OK", *extra: str) -> bytes:
    return head(status, len(body), *extra) + body


def padded(good: bytes) -> bytes:
    """The good document, with nothing wrong but its size."""
    return json.dumps({**json.loads(good), "padding": "x" * LARGE}).encode()


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda good: whole(b"\x00<html>" + good),
    "empty set": lambda _: whole(b'{"keys": []}'),
    "other json": lambda good: whole(b"[" + good + b"]"),
    "unusable keys": lambda _: whole(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 7, {"kty": "EC", "crv": "P-256"}]}'),
    "large": lambda good: whole(padded(good)),
    "large and chunked": lambda good: (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(padded(good)), padded(good))
    ),
    "redirect": lambda good: whole(good, "302 Found", f"location: {ELSEWHERE}"),
    "moved": lambda good: whole(good, "308 Permanent Redirect", f"location: {ELSEWHERE}"),
    "error": lambda good: whole(good, "500 Internal Server Error"),
    "cut": lambda good: head("200 OK", len(good) + 10) + good,
    "no http": lambda _: b"SSH-2.0-OpenSSH_9.6\r\n" * 3,
}
"""Answers by what is wrong with them; the good document is inside wherever it can be."""


async def serve_fault(state: State, fault: str, good: bytes, writer: asyncio.StreamWriter) -> None:
    if fault == "hang":
        state.hanging += 1
        try:
            await asyncio.sleep(3600)
        finally:
            state.hanging -= 1
    elif fault == "drip":
        for byte in whole(good):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(DRIP)
    else:
        writer.write(SPOILED[fault](good))
        await writer.drain()


def control(state: State, method: str, body: bytes) -> bytes:
    if method == "POST":
        for name, value in json.loads(body).items():
            setattr(state, name, Counter(value) if name == "asked" else value)
    return whole(json.dumps({"asked": state.asked, "hanging": state.hanging}).encode())


async def serve_one(state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; return whether the connection stays."""
    request, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = request.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    if path == CONTROL:
        writer.write(control(state, method, body))
        return True
    state.asked[path] += 1
    if state.latency:
        await asyncio.sleep(state.latency)
    document = state.documents.get(path)
    if document is None:
        writer.write(whole(b"{}", "404 Not Found"))
        return True
    good, fault = json.dumps(document).encode(), state.faults.get(path)
    if fault:
        await serve_fault(state, fault, good, writer)
        return False
    writer.write(whole(good, "200 OK", *([f"cache-control: max-age={state.max_age}"] if state.max_age else [])))
    return True


async def main(port: int) -> None:
    state = State()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A caller that gives up ends what is dripping or hanging.
        serving = asyncio.current_task()
        assert serving
        watch = asyncio.create_task(left(reader, serving))
        try:
            while await serve_one(state, reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            watch.cancel()
            writer.close()

    async def left(reader: asyncio.StreamReader, serving: asyncio.Task[Any]) -> None:
        while not reader.at_eof():  # noqa: ASYNC110  (streams tell it in no other way while nobody reads)
            await asyncio.sleep(0.01)
        serving.cancel()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    # Whoever started it holds the other end of its standard input: killed or not, it takes the process along.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  (whoever started it reads the port here)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
