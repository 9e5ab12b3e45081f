"""A real server on a free port of this machine, in a thread of this process.

    with serving(LocalHost(random_bundle(folder), folder=folder), Settings(port=0, state=folder)) as server:
        httpx.get(f"{server.url}/health/ready")
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


class Proxy:
    """TCP to a port of this machine, to be cut. `after`: how many bytes each connection in turn lets through from the
    client before it breaks, the last in the middle of a message."""

    def __init__(self, port: int, after: tuple[int, ...] = ()) -> None:
        self.target, self._after = port, list(after)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection is reset, with what is under way in it."""
        for each in self._open:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.cuts += bool(self._open)
        self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                try:
                    outside = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    inside.close()
                    continue
                outside.settimeout(None)
                self._open += [inside, outside]
                limit = self._after.pop(0) if self._after else None
                threading.Thread(target=self._pump, args=(inside, outside, limit), daemon=True).start()
                threading.Thread(target=self._pump, args=(outside, inside, None), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        left = limit
        try:
            while data := source.recv(16384):
                if left is not None:
                    data, left = data[:left], left - len(data)
                sink.sendall(data)
                if left is not None and left <= 0:
                    self.cut()
                    return
        except OSError:
            pass
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
