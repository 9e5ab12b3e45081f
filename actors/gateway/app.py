"""The gateway as one ASGI application: `make_app(host, settings)`."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Mount
from starlette.types import Scope

import anymodal
from actors.gateway import chat, clips, files, health
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.guard import GUARDED, OPEN, Guard
from actors.gateway.hosts import Host
from actors.gateway.settings import Settings

log = logging.getLogger("anymodal")


def make_app(host: Host, settings: Settings) -> FastAPI:
    """All routes, with what guards them. The host stays the caller's to close."""
    gateway = Gateway(host, settings)
    app = FastAPI(title="anymodal", version=anymodal.__version__, lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    described = app.openapi
    app.openapi = lambda: chat.add_shapes(described())
    for part in (chat, files, health):
        app.include_router(part.router)
    if importlib.util.find_spec("actors.gateway.realtime"):
        from actors.gateway import realtime

        app.include_router(realtime.router(gateway))
    web = settings.web or pages()
    if web is not None:
        app.router.routes.append(Pages("/", StaticFiles(directory=web, html=True), name="web"))
    app.add_exception_handler(Exception, _answer)
    for kind in (Fault, anymodal.AnymodalError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(Guard, gateway=gateway)
    return app


class Pages(Mount):
    """The page, everywhere but where the API is: there a wrong method has to be told from a missing path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["path"].startswith((*GUARDED, *OPEN)) else super().matches(scope)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    tasks = [asyncio.create_task(health.watch(gateway)), asyncio.create_task(files.tidy(gateway))]
    await gateway.asks.run(clips.forget_left, gateway.host, gateway.settings.state)
    for begin in gateway.on_start:
        await begin()
    try:
        yield
    finally:
        await drain(gateway)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *gateway.tasks, return_exceptions=True)
        gateway.close()


async def drain(gateway: Gateway) -> None:
    """Let live sessions say goodbye, once, and no longer than `settings.drain_s`."""
    gateway.draining.set()
    leaving, gateway.on_drain = gateway.on_drain, []
    try:
        async with asyncio.timeout(gateway.settings.drain_s):
            for outcome in await asyncio.gather(*(leave() for leave in leaving), return_exceptions=True):
                if isinstance(outcome, BaseException):
                    log.error("draining failed", exc_info=outcome)
    except TimeoutError:
        log.warning("live sessions did not end within %g s", gateway.settings.drain_s)


def pages() -> Path | None:
    """The web page: packed with the package, or in a checkout's demos/web."""
    home = Path(anymodal.__file__).parent
    return next((folder for folder in (home / "web", home.parent / "demos" / "web") if (folder / "index.html").is_file()),
                None)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    """An error in OpenAI's shape."""
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        fault = Fault(error.status_code, code, message)
        return JSONResponse(fault.body, fault.status, {**(error.headers or {}), **fault.headers})
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        error = Fault(400, "invalid_value", f"{where}: {first['msg']}", param=where or None)
    fault = as_answer(error)
    return JSONResponse(fault.body, fault.status, fault.headers)
