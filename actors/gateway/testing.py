"""A real server on a free port of this machine, in a thread of this process.

    with serving(LocalHost(random_bundle(folder), folder=folder), Settings(port=0, state=folder)) as server:
        httpx.get(f"{server.url}/health/ready")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from actors.gateway.app import make_app
from actors.gateway.context import Gateway
from actors.gateway.hosts import Host
from actors.gateway.serve import Server, config_of
from actors.gateway.settings import Settings

START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 60.0


@dataclass(frozen=True)
class Serving:
    """`url` for HTTP, `ws_url` for WebSockets; `gateway`: its insides, to be looked at."""

    port: int
    gateway: Gateway
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def drain(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(15, None)


@contextmanager
def serving(host: Host, settings: Settings) -> Iterator[Serving]:
    """Serves until the block ends; the host is closed then too."""
    app = make_app(host, settings)
    server = Server(config_of(app, settings), app.state.gateway)
    thread = threading.Thread(target=server.run, name="gateway", daemon=True)
    thread.start()
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not server.started or app.state.gateway.parts.ready():
            if not thread.is_alive() or time.monotonic() > deadline_s:
                raise RuntimeError(f"the server did not start: {app.state.gateway.parts.ready()}")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Serving(port, app.state.gateway, server)
    finally:
        server.should_exit = True
        thread.join(STOP_TIMEOUT_S)
        host.close()
        if thread.is_alive():
            raise RuntimeError("the server did not end")
