"""An HTTP connection that must say something: one whose request does not come is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 15.0  # for a request's first line and headers; closed after at most twice as long


class Connection(H11Protocol):
    """uvicorn waits for ever for the rest of a request's headers."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._waited = False
        self._look_again()

    def _look_again(self) -> None:
        self.loop.call_later(HEADERS_S, self._look)

    def _look(self) -> None:
        transport: Any = self.transport
        if transport.is_closing() or transport.get_protocol() is not self:  # or it has become a WebSocket
            return
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        waiting = begun and self.conn.their_state is h11.IDLE
        if waiting and self._waited:
            transport.abort()
            return
        self._waited = waiting
        self._look_again()
