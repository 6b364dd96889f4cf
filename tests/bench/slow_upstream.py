"""An upstream that takes its time for each call, for thousands at once: a bare protocol, to be no bottleneck."""

import asyncio
import itertools
import sys
from typing import cast

import uvloop

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parents[1]))

from bench.parts import session_answer

NUMBERS = itertools.count(1)
TEMPLATE = session_answer("cksess_%032d")


class Slow(asyncio.Protocol):
    """Answers every request on the connection after *seconds*."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

    def data_received(self, chunk: bytes) -> None:
        self.buffer += chunk
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = 0
            for line in self.buffer[:head].split(b"\r\n"):
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(self.buffer) < head + 4 + length:
                return
            self.buffer = self.buffer[head + 4 + length :]
            asyncio.get_running_loop().call_later(self.seconds, self.answer)

    def answer(self) -> None:
        body = TEMPLATE.replace("%032d", f"{next(NUMBERS):032d}").encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Slow(seconds), "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
