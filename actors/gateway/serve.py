"""`anymodal serve`: the gateway as a process."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from anymodal.errors import AnymodalError, need

need("fastapi", extra="serve")
need("multipart", extra="serve")
import uvicorn  # noqa: E402

from actors.gateway.app import drain  # noqa: E402
from actors.gateway.context import Gateway  # noqa: E402
from actors.gateway.settings import Settings  # noqa: E402

KEY_VARIABLE = "ANYMODAL_API_KEY"


class Server(uvicorn.Server):
    """At SIGTERM or SIGINT it is no longer ready, lets live sessions say goodbye, and then ends."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.draining.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        for each in self.servers:  # nobody new
            each.close()
        await drain(self._gateway)
        await super().shutdown(sockets)


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app, host=settings.host.strip("[]"), port=settings.port, log_level="warning", access_log=False,
        ws="websockets-sansio", ws_max_size=settings.message_bytes, ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_s, ws_per_message_deflate=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.drain_s) + 1, server_header=False, h11_max_incomplete_event_size=64 * 1024)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        return asyncio.run(_serve(options))
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anymodal serve", description=main.__doc__)
    return parser


async def _serve(options: argparse.Namespace) -> int:
    raise NotImplementedError
