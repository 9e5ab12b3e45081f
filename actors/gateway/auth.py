"""Who calls: an API key, where there are any, and pages only of our own site or of those allowed.

Without keys the server can only be reached from this machine; then what has to be kept off is other sites' pages in a
browser here. They give themselves away by `Origin`, or, where they made their own name point at this machine, by `Host`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from actors.gateway.faults import Fault
from actors.gateway.keys import find_key
from actors.gateway.settings import Settings, is_loopback

SUBPROTOCOL_KEY = "openai-insecure-api-key."  # how a browser's page gives a key: it can set no header of a WebSocket
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Client:
    """Who calls. `id` tells clients apart for limits and files: the key's name, or the address where there are no keys."""

    id: str
    address: str


def check_call(connection: HTTPConnection, settings: Settings) -> Client:
    """The client of a request or a WebSocket. Raises Fault (401, 403)."""
    check_host(connection.headers, settings)
    check_origin(connection.headers, settings)
    address = connection.client.host if connection.client else "local"
    if not settings.api_keys:
        return Client(f"at {address}", address)
    given = given_key(connection.headers)
    if not given:
        raise Fault(401, "missing_api_key", "no API key was given", fix="send the header Authorization: Bearer KEY")
    key = find_key(given, settings.api_keys)
    if key is None:
        raise Fault(401, "invalid_api_key", "the API key is not known", fix="check it")
    if key.ends_s is not None and time.time() >= key.ends_s:
        raise Fault(401, "expired_api_key", f"the API key {key.name!r} has expired", fix="ask for a new one")
    return Client(f"key {key.name}", address)


def given_key(headers: Mapping[str, str]) -> str:
    """The key in Authorization, or among a WebSocket's subprotocols; "" if there is none."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret.strip():
        return secret.strip()
    offered = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")]
    return next((word.removeprefix(SUBPROTOCOL_KEY) for word in offered if word.startswith(SUBPROTOCOL_KEY)), "")


def subprotocol(headers: Mapping[str, str]) -> str | None:
    """What to accept of a WebSocket's subprotocols: "realtime" where it is offered, never the key."""
    offered = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")]
    return "realtime" if "realtime" in offered else None


def check_host(headers: Mapping[str, str], settings: Settings) -> None:
    """Raises Fault (403) where the server is called by a name that is not its own."""
    host = headers.get("host", "")
    name = _host_name(host)
    if is_loopback(name) or name == settings.host.strip("[]").lower() or name in settings.allowed_hosts:
        return
    if settings.api_keys and not settings.allowed_hosts:
        return  # the key is what protects it
    raise Fault(403, "host_not_allowed", f"this server is not called {host!r:.100}",
                fix="use its address, or start it with --allow-host NAME")


def check_origin(headers: Mapping[str, str], settings: Settings) -> None:
    """Raises Fault (403) for a call from a page of another site. Programs send no Origin."""
    origin = headers.get("origin")
    if origin is None or "*" in settings.allowed_origins or origin.rstrip("/") in settings.allowed_origins:
        return
    if origin != "null" and _same_site(origin, headers.get("host", "")):
        return
    raise Fault(403, "origin_not_allowed", f"pages of {origin!r:.100} may not call this server",
                fix="start it with --allow-origin ORIGIN")


def _same_site(origin: str, host: str) -> bool:
    try:
        page = urlsplit(origin)
        default = DEFAULT_PORTS.get(page.scheme)
        here = urlsplit(f"//{host}")
        return (default is not None and page.hostname == here.hostname
                and (page.port or default) == (here.port or default))
    except ValueError:
        return False


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
