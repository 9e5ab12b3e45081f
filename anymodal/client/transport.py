"""How a client reaches a server: the one seam where tests put another (`anymodal.client.testing.FakeServer`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException

from anymodal.client.errors import UnreachableError, refusal
from anymodal.client.options import MIB, Options
from anymodal.errors import InputError

RECEIVE_BYTES = 64 * MIB  # of one message


class DroppedError(Exception):
    """The connection is gone; what comes of it is for `link` to decide. `code`: of the WebSocket, 1006 for none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code, self.reason = code, reason


class Connection(Protocol):
    """A WebSocket. Its methods raise DroppedError once it is gone."""

    async def send(self, text: str) -> None: ...

    async def receive(self) -> str: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    def http(self, url: str) -> httpx.AsyncBaseTransport | None:
        """What carries requests; None is httpx's own."""

    async def connect(self, url: str, headers: Mapping[str, str], options: Options) -> Connection:
        """Raises UnreachableError, RefusedError."""


class NetTransport:
    """Sockets. Proxies of the environment are used, except for this machine itself."""

    def http(self, url: str) -> httpx.AsyncBaseTransport | None:
        return httpx.AsyncHTTPTransport() if is_loopback(url) else None

    async def connect(self, url: str, headers: Mapping[str, str], options: Options) -> Connection:
        direct = {"proxy": None} if is_loopback(url) and int(websockets.__version__.split(".")[0]) >= 15 else {}
        try:
            return Socket(await connect(
                url, additional_headers=dict(headers), open_timeout=options.connect_timeout_s,
                ping_interval=options.ping_s, ping_timeout=options.ping_s, close_timeout=options.close_timeout_s,
                max_size=RECEIVE_BYTES, compression=None, **direct))
        except InvalidURI as error:
            raise InputError(f"{url!r} is no address", fix="such as http://127.0.0.1:8000") from error
        except InvalidStatus as error:
            response = error.response
            raise refusal(response.status_code, response.body or b"", response.headers) from error
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException) as error:
            raise unreachable(url, error) from error


class Socket:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise _dropped(error) from error

    async def receive(self) -> str:
        try:
            found = await self._socket.recv()
        except ConnectionClosed as error:
            raise _dropped(error) from error
        return found if isinstance(found, str) else found.decode("utf-8", "replace")

    async def close(self) -> None:
        await self._socket.close()


def _dropped(error: ConnectionClosed) -> DroppedError:
    if error.rcvd is None:  # no close frame of the server, whatever we sent ourselves
        return DroppedError(1006, error.sent.reason if error.sent else "the connection broke")
    return DroppedError(error.rcvd.code, error.rcvd.reason)


def unreachable(url: str, error: Exception) -> UnreachableError:
    address = url.partition("?")[0]  # what comes after may hold a token
    why = str(error) or type(error).__name__
    return UnreachableError(f"no connection to {address}: {why}", fix="is the server running? anymodal serve")


def is_loopback(url: str) -> bool:
    host = (urlsplit(url).hostname or "").lower()
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
