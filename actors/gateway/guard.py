"""Stands before every HTTP request: who calls, how often, how large, how slowly. Sockets check themselves.

What it learns is at `scope["state"]["client"]`. It also counts and times what passes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from actors.gateway.auth import check_call, check_host
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer

OPEN = ("/health/live", "/health/ready")  # to whoever asks: they tell nothing but yes or no
GUARDED = ("/v1/", "/metrics", "/openapi.json")
UPLOAD = "/v1/files"
FORM_BYTES = 64 * 1024  # of an upload, beside the file itself
CORS_AGE_S = 600
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
PAGE = {**SAFE, "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self' ws: wss:; worker-src 'self' blob:; frame-ancestors 'none'"}


class SlowReader(Exception):
    """A client takes none of its answer: it is let go."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Any, gateway: Gateway) -> None:
        self._app, self._gateway = app, gateway

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = time.perf_counter(), [500]
        headers = Headers(scope=scope)
        guarded = scope["path"].startswith(GUARDED)
        more = {**(SAFE if guarded or scope["path"] in OPEN else PAGE), **self._cors(headers)}

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                known = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((name.encode(), value.encode())
                                      for name, value in more.items() if name.encode() not in known)]
            try:
                async with asyncio.timeout(self._gateway.settings.read_timeout_s):
                    await send(message)
            except TimeoutError:
                raise SlowReader from None

        try:
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers and guarded:
                await self._preflight(headers)(scope, receive, sending)
                return
            if guarded:
                self._admit(scope)
            elif scope["path"] not in OPEN:
                check_host(headers, self._gateway.settings)
            await self._app(scope, self._bounded(scope, headers, receive), sending)
        except Fault as fault:
            self._gateway.metrics.refused.labels(fault.code).inc()
            await JSONResponse(fault.body, fault.status, fault.headers)(scope, receive, sending)
        except SlowReader:
            self._gateway.metrics.refused.labels("slow_reader").inc()
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._gateway.metrics.requests.labels(route, str(status[0])).inc()
            self._gateway.metrics.request_time.labels(route).observe(time.perf_counter() - began_s)

    def _admit(self, scope: dict[str, Any]) -> None:
        client = check_call(HTTPConnection(scope), self._gateway.settings)
        self._gateway.clients.admit(client.id)
        scope.setdefault("state", {})["client"] = client

    def _bounded(self, scope: dict[str, Any], headers: Headers, receive: Any) -> Any:
        """`receive`, which raises Fault for a body that is too large (413) or too slow (408)."""
        settings = self._gateway.settings
        most = settings.file_bytes + FORM_BYTES if scope["path"].startswith(UPLOAD) else settings.request_bytes
        counted = self._gateway.metrics.bytes_in.labels("http")
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > most:
            raise too_large(int(declared), most)
        taken, whole = 0, False

        async def receiving() -> dict[str, Any]:
            nonlocal taken, whole
            if whole:  # what comes now is that the client leaves, and it may take its time
                return await receive()
            try:
                async with asyncio.timeout(settings.read_timeout_s):
                    message = await receive()
            except TimeoutError:
                raise Fault(408, "too_slow", f"the request's body did not go on for {settings.read_timeout_s:g} s",
                            fix="send it faster") from None
            size = len(message.get("body", b""))
            whole = not message.get("more_body", False)
            taken += size
            counted.inc(size)
            if taken > most:
                raise too_large(taken, most)
            return message

        return receiving

    def _cors(self, headers: Headers) -> dict[str, str]:
        origin = headers.get("origin")
        allowed = self._gateway.settings.allowed_origins
        if origin is None or not ("*" in allowed or origin in allowed):
            return {}
        return {"access-control-allow-origin": origin, "vary": "Origin",
                "access-control-expose-headers": "Retry-After"}

    def _preflight(self, headers: Headers) -> JSONResponse:
        """A page of an allowed site may send any of our headers."""
        if not self._cors(headers):
            fault = as_answer(Fault(403, "origin_not_allowed", "pages of this site may not call this server",
                                    fix="start it with --allow-origin ORIGIN"))
            return JSONResponse(fault.body, fault.status)
        return JSONResponse({}, 200, {
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": headers.get("access-control-request-headers", "authorization, content-type"),
            "access-control-max-age": str(CORS_AGE_S)})


def too_large(size: int, most: int) -> Fault:
    return Fault(413, "request_too_large", f"the request has {size} bytes or more, at most {most} are taken",
                 fix="send less, or upload it to /v1/files")
