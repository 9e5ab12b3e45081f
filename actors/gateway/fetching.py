"""Addresses that clients give, fetched without reaching what is private.

The name is resolved here, every address it has must be public, and the connection is made to the very address that was
looked at: a name that points elsewhere a moment later changes nothing. Each redirect goes the same way. No proxy, no
cookies, no compression, a size and a time limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from actors.gateway.faults import Fault
from actors.gateway.settings import Settings

REDIRECTS = (301, 302, 303, 307, 308)
CONNECT_TIMEOUT_S = 10.0
LONGEST_URL = 8192
NAT64 = ipaddress.ip_network("64:ff9b::/96")
HEADERS = {"User-Agent": "anymodal", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


class Refused(Exception):
    """An address that must not be reached."""


async def fetch(url: str, target: Path, settings: Settings, *, param: str | None = None) -> None:
    """Save what is at an http or https address. Raises Fault (400), which tells nothing of what answered."""
    if not settings.fetch:
        raise Fault(400, "fetching_disabled", "this server fetches no addresses", param=param,
                    fix="upload it to /v1/files, or send it as a data URL")
    shown = url.partition("?")[0][:200]
    try:
        async with asyncio.timeout(settings.fetch_timeout_s):
            await _follow(url, target, settings)
    except Refused as error:
        raise Fault(400, "url_not_allowed", f"{shown!r} is not fetched: {error}", param=param,
                    fix="give a public http or https address, or upload the file to /v1/files") from None
    except TimeoutError:
        raise Fault(400, "url_too_slow", f"{shown!r} took over {settings.fetch_timeout_s:g} s", param=param,
                    fix="upload the file to /v1/files") from None
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
        raise Fault(400, "url_unreachable", f"{shown!r} cannot be fetched: {_reason(error)}", param=param,
                    fix="check the address") from None


async def _follow(url: str, target: Path, settings: Settings) -> None:
    async with httpcore.AsyncConnectionPool(network_backend=_Public(settings)) as pool:
        for _ in range(settings.most_redirects + 1):
            _check_url(url)
            async with pool.stream("GET", url.encode("ascii", "strict"), headers=_headers(url),
                                   extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "read": settings.fetch_timeout_s,
                                                           "write": CONNECT_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}}
                                   ) as response:
                headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in REDIRECTS and b"location" in headers:
                    url = urljoin(url, headers[b"location"])
                    continue
                if response.status != 200:
                    raise Refused(f"it answers with status {response.status}")
                if headers.get(b"content-encoding", "identity").lower() != "identity":
                    raise Refused("it is compressed on its way")
                await _save(response, target, settings.fetch_bytes, headers.get(b"content-length", ""))
                return
        raise Refused(f"it leads on more than {settings.most_redirects} times")


async def _save(response: Any, target: Path, most: int, declared: str) -> None:
    too_large = Refused(f"it is larger than {most} bytes")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    size = 0
    with target.open("wb") as file:  # pieces are small: written as they come
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > most:
                raise too_large
            file.write(piece)


def _check_url(url: str) -> None:
    """Raises Refused for what is no plain web address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        url.encode("ascii")
    except (ValueError, UnicodeEncodeError):
        raise Refused("it is no address") from None
    if parts.scheme not in ("http", "https"):
        raise Refused(f"{parts.scheme or 'no scheme'!r:.20} is not http or https")
    if not host or len(url) > LONGEST_URL or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise Refused("it is no address")
    if parts.username is not None or parts.password is not None:
        raise Refused("it has a user's name or password in it")


def _headers(url: str) -> list[tuple[bytes, bytes]]:
    host = urlsplit(url).netloc
    return [(b"Host", host.encode()), *((name.encode(), value.encode()) for name, value in HEADERS.items())]


class _Public(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, settings: Settings) -> None:
        self._inner, self._private = httpcore.AnyIOBackend(), settings.allow_private_urls

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None,  # noqa: ASYNC109
                          local_address: str | None = None,
                          socket_options: Iterable[Any] | None = None) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(info[4][0] for info in found))
        if not self._private:
            for address in addresses:
                if not is_public(address):
                    raise Refused("its address is private, loopback or link-local")
        failed: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(self, *given: Any, **more: Any) -> httpcore.AsyncNetworkStream:
        raise Refused("it is no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an IP address is anybody's on the internet; one that carries another one is judged by both."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    carried = []
    if ip.version == 6:
        carried = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in NAT64:
            return is_public(str(ipaddress.ip_address(int(ip) & 0xFFFFFFFF)))
    if any(each is not None and not is_public(str(each)) for each in carried):
        return False
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return True
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
