"""uvicorn's WebSockets, with a way to cut a connection whose other side takes nothing, not even a goodbye.

A transport that is closed waits until all that was written is taken; one that never is stays open for ever.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT = "anymodal.abort"  # in a scope's extensions: cuts its connection
GRACE_S = 2.0  # for what was written before the end


class WebSockets(WebSocketsSansIOProtocol):
    """For `uvicorn.Config(ws=...)`."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][ABORT] = self.transport.abort

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            self._cut_after(self.close_timeout + GRACE_S)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_after(GRACE_S)

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._cut_after(GRACE_S)

    def _cut_after(self, seconds: float) -> None:
        if not self.disconnected:
            self.loop.call_later(seconds, self.transport.abort)
