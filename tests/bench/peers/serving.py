"""Serve a Python peer as a deployment would: Uvicorn, one worker, its fast loop and parser, no access log."""

import os
import socket

import uvicorn
from fastapi import FastAPI


class Announced(uvicorn.Server):
    """A server that prints one line containing `listening` as soon as its port is open."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on http://{host}:{port}", flush=True)


def serve(app: FastAPI) -> None:
    """Serve *app* at `HOST` and `PORT` until SIGTERM or SIGINT; port 0 is any free one."""
    config = uvicorn.Config(
        app,
        host=os.environ["HOST"],
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
    Announced(config).run()
