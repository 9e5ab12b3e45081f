"""/v1/chat/completions and /v1/models.

    request --parse, plan--> media here, sniffed --> a session of its own --> text as it is generated
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import Request

from actors.gateway.auth import Client
from actors.gateway.chat_shapes import ChatRequest, Cut, Plan, extras, parse, plan, usage
from actors.gateway.clips import ClipAsking
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.media import Wanted, bring, scratch
from anymodal.types import Answer, Delta

PATH = "http"
BEAT_S = 10.0  # between comments that keep a silent stream open; an error before the first has a status of its own

router = APIRouter(prefix="/v1", tags=["chat"])
BODY = {"requestBody": {"required": True, "content": {"application/json": {
    "schema": {"$ref": "#/components/schemas/ChatRequest"}}}}}


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The models that are here."""
    return {"object": "list", "data": [_model(request.app.state.gateway)]}


@router.get("/models/{model}")
async def model(request: Request, model: str) -> dict[str, Any]:
    """One of them."""
    _check_model(request.app.state.gateway, model)
    return _model(request.app.state.gateway)


@router.post("/chat/completions", openapi_extra=BODY)
async def create(request: Request) -> Response:
    """Answer a question about what the messages show."""
    gateway: Gateway = request.app.state.gateway
    if gateway.draining.is_set():
        raise Fault(503, "shutting_down", "the server is ending", retry_after_s=5.0)
    if not request.headers.get("content-type", "application/json").lower().startswith("application/json"):
        raise Fault(415, "wrong_content_type", "the body has to be application/json")
    planned = await gateway.pushes.run(_planned, await request.body(), gateway)
    _check_model(gateway, planned.request.model)
    completion = Completion(gateway, planned)
    pieces = completion.pieces(request.state.client)
    if planned.request.stream:
        return await _streamed(completion, pieces)
    whole = asyncio.ensure_future(completion.whole(pieces))
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({whole, left}, return_when=asyncio.FIRST_COMPLETED)
        if not whole.done():
            return Response(status_code=499)  # nobody is there to read it
        return JSONResponse(whole.result())
    finally:
        for task in (whole, left):
            task.cancel()
        await asyncio.gather(whole, left, return_exceptions=True)


def _planned(body: bytes, gateway: Gateway) -> Plan:
    instructed = gateway.host.spec.prompt.template is not None
    return plan(parse(body), gateway.settings.most_parts, instructed=instructed)


class Completion:
    """One answer on its way."""

    def __init__(self, gateway: Gateway, planned: Plan) -> None:
        self._gateway, self._plan = gateway, planned
        self._id, self._began_s, self._created = f"chatcmpl-{uuid.uuid4().hex}", time.perf_counter(), int(time.time())
        self._cut = Cut(planned.request, gateway.host.tokenizer)
        self._asking: ClipAsking | None = None
        self._first = True

    async def pieces(self, client: Client) -> AsyncIterator[Delta | Answer | None]:
        """The answer as it is generated; None whenever nothing has come for BEAT_S. Closing it ends the work, of which
        nothing is left behind. A client that reads slowly holds nobody up: the work goes on without it."""
        made: asyncio.Queue[Delta | Answer | Exception | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._work(client, made))
        self._gateway.tasks.add(work)
        work.add_done_callback(self._gateway.tasks.discard)
        try:
            while True:
                try:
                    piece = await asyncio.wait_for(made.get(), BEAT_S)
                except TimeoutError:
                    yield None
                    continue
                if piece is None:
                    return
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            work.cancel()
            await asyncio.wait({work})  # if this is cancelled in its turn, the work still puts everything away

    async def _work(self, client: Client, made: asyncio.Queue) -> None:
        gateway, status, end = self._gateway, "failed", None
        try:
            with gateway.metrics.span("chat", model=gateway.host.name, question=self._plan.question[:200]):
                async with asyncio.timeout(gateway.settings.answer_timeout_s), gateway.answering.enter(client.id):
                    await self._answer(client, made)
            status = "done"
        except TimeoutError:
            end = Fault(504, "timeout", f"the answer took over {gateway.settings.answer_timeout_s:g} s",
                        fix="ask about a shorter clip")
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except Exception as error:
            end = error
        finally:
            gateway.metrics.answers.labels(PATH, status).inc()
            made.put_nowait(end)

    async def _answer(self, client: Client, made: asyncio.Queue) -> None:
        gateway, asked = self._gateway, self._plan.request.anymodal
        with scratch(gateway) as folder:
            steps = [await bring(gateway, client, step, folder / f"part-{number}") if isinstance(step, Wanted) else step
                     for number, step in enumerate(self._plan.steps)]
            asking = self._asking = ClipAsking(gateway.host, gateway.settings.state, steps, self._plan.question,
                                               asked and asked.at_s, gateway.metrics)
            try:
                async for piece in gateway.asks.pieces(asking):
                    self._count(piece)
                    made.put_nowait(piece)
            finally:
                await asyncio.shield(gateway.asks.run(asking.close))

    def _count(self, piece: Delta | Answer) -> None:
        metrics, now_s = self._gateway.metrics, time.perf_counter() - self._began_s
        if self._first:
            self._first = False
            metrics.first_token.labels(PATH).observe(now_s)
        if isinstance(piece, Answer):
            metrics.answer_time.labels(PATH).observe(now_s)
            metrics.windows.inc(piece.windows_seen)
            metrics.drops.labels("late").inc(piece.frames_dropped)

    async def whole(self, pieces: AsyncIterator[Delta | Answer | None]) -> dict[str, Any]:
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Answer):
                    self._cut.end()
                    message = {"role": "assistant", "content": self._cut.text, "refusal": None, "annotations": []}
                    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._cut.reason}
                    return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(),
                            "anymodal": extras(self._plan, piece)}
                if piece is not None:
                    self._cut.push(piece.text)
        raise Fault(500, "no_answer", "the answer broke off", fix="ask again")

    async def events(self, pieces: AsyncIterator[Delta | Answer | None]) -> AsyncIterator[bytes]:
        """Server-sent events; None of the pieces is a heartbeat."""
        with_usage = bool(self._plan.request.stream_options and self._plan.request.stream_options.include_usage)
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        answered = False
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if piece is None:
                        yield b": working\n\n"
                    elif isinstance(piece, Delta):
                        if text := self._cut.push(piece.text):
                            yield self._chunk({"content": text})
                    else:
                        if text := self._cut.end():
                            yield self._chunk({"content": text})
                        told = self._usage()
                        yield self._chunk({}, reason=self._cut.reason, anymodal=extras(self._plan, piece))
                        if with_usage:
                            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": told})
                        answered = True
            if not answered:
                raise Fault(500, "no_answer", "the answer broke off", fix="ask again")
        except Exception as error:
            yield _event(as_answer(error).body)
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._gateway.host.name,
                "system_fingerprint": None}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **more})

    def _usage(self) -> dict[str, Any]:
        counted = usage(self._plan, self._cut.text, self._asking.tokens, self._gateway.host.tokenizer)
        for kind in ("prompt", "completion"):
            self._gateway.metrics.tokens.labels(kind).inc(counted[f"{kind}_tokens"])
        return counted


async def _streamed(completion: Completion, pieces: AsyncIterator[Delta | Answer | None]) -> Response:
    """The response once there is text, or once it takes long: until then an error has its own status."""
    first = await anext(pieces, None)

    async def again() -> AsyncIterator[Delta | Answer | None]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return StreamingResponse(completion.events(again()), media_type="text/event-stream",
                             headers={"cache-control": "no-store", "x-accel-buffering": "no"})


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(row: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(row, ensure_ascii=False)}\n\n".encode()


def _check_model(gateway: Gateway, name: str) -> None:
    if name != gateway.host.name:
        raise Fault(404, "model_not_found", f"no model {name!r:.100}", param="model", fix=f"use {gateway.host.name!r}")


def _model(gateway: Gateway) -> dict[str, Any]:
    spec = gateway.host.spec
    return {"id": gateway.host.name, "object": "model", "created": gateway.began_s, "owned_by": "anymodal",
            "anymodal": {"modalities": sorted(spec.modalities), "window_s": spec.window_s}}


def add_shapes(schema: dict[str, Any]) -> dict[str, Any]:
    """The request's shape, for /openapi.json: it is read by hand, in a thread."""
    found = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes = schema.setdefault("components", {}).setdefault("schemas", {})
    shapes.update(found.pop("$defs", {}))
    shapes["ChatRequest"] = found
    return schema
