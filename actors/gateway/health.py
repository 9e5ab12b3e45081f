"""/health/live: the event loop turns. /health/ready: all parts work, and new work is taken. /metrics."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import Request

from actors.gateway.context import Gateway
from actors.gateway.metrics import CONTENT_TYPE
from actors.gateway.parts import LOOK_EVERY_S
from anymodal.errors import AnymodalError

log = logging.getLogger("anymodal")
router = APIRouter()


async def watch(gateway: Gateway) -> None:
    """Look at the parts again and again, until cancelled."""
    while True:
        try:
            gateway.parts.works(gateway.metrics, await gateway.waits.run(gateway.host.ready))
        except AnymodalError as error:
            gateway.parts.fails(error)
        except Exception as error:
            log.exception("the parts could not be looked at")
            gateway.parts.fails(error)
        await asyncio.sleep(LOOK_EVERY_S)


@router.get("/health/live", tags=["health"])
async def live() -> dict[str, str]:
    """Answers as long as the server runs."""
    return {"status": "live"}


@router.get("/health/ready", tags=["health"], responses={503: {"description": "Not now"}})
async def ready(request: Request) -> JSONResponse:
    """200 where new work is taken, else 503."""
    gateway: Gateway = request.app.state.gateway
    status = "draining" if gateway.draining.is_set() else "ready" if not gateway.parts.ready() else "unavailable"
    return JSONResponse({"status": status}, 200 if status == "ready" else 503)


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    gateway: Gateway = request.app.state.gateway
    return Response(await gateway.pushes.run(gateway.metrics.text), media_type=CONTENT_TYPE)
