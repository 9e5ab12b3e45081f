"""`WS /v1/realtime`: a socket of a live session. Reads, checks and hands on; sends what the session has to say.

| what is wrong | how it is told |
|---|---|
| an event | an `error` event that names it; the session goes on |
| a page of another site, a wrong host | the handshake is refused with 403 |
| a key, a model, a session that is gone, a client that sends nothing but faults | an `error` event, then close code 1008 |
| a message over the limit | close code 1009 |
| the server ends | close code 1012 |
| no place, too many calls, a client that reads too slowly | an `error` event where it can be sent, then close code 1013 |
| a client that does not answer pings | close code 1011, and the connection is cut |
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from actors.gateway.auth import Client, check_call, check_host, check_origin, subprotocol
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.hearing import as_fault
from actors.gateway.limits import Bucket
from actors.gateway.live import Live
from actors.gateway.lives import RESTART, Lives
from actors.gateway.outbox import as_text
from actors.gateway.sockets import ABORT
from anymodal import protocol as p
from anymodal.errors import nearest

MOST_FAULTS = 1000  # in a row: what follows is garbage
LARGE = 256 * 1024  # a message that is parsed in a thread
CHECK_EVERY_S = 5.0  # whether the client's key still holds
CLOSE_S = 5.0
REASON_BYTES = 120
KNOWN = tuple(kind.model_fields["type"].annotation.__args__[0] for kind in p.ClientEvent.__origin__.__args__)

log = logging.getLogger("anymodal")


def router(gateway: Gateway) -> APIRouter:
    """The route, and what begins and ends with the server."""
    lives, routes = Lives(gateway), APIRouter()
    gateway.on_start.append(lives.start)
    gateway.on_drain.append(lives.drain)

    @routes.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        await Connection(gateway, lives, websocket).run()

    return routes


class Connection:
    """One WebSocket, from its handshake to its end. See `live.Socket`."""

    def __init__(self, gateway: Gateway, lives: Lives, websocket: WebSocket) -> None:
        self._gateway, self._lives, self._websocket = gateway, lives, websocket
        self.cursor = 0
        self._live: Live | None = None
        self._allowed = 0  # behind this number the client may be by what it missed
        self._acked = 0
        self._news = asyncio.Event()
        self._leaving: tuple[int, str] | None = None
        self._faults = 0

    # -- its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            check_host(self._websocket.headers, self._gateway.settings)
            check_origin(self._websocket.headers, self._gateway.settings)
        except Fault as fault:
            self._gateway.metrics.refused.labels(fault.code).inc()
            await self._websocket.close(1008, fault.code)
            return
        await self._websocket.accept(subprotocol(self._websocket.headers))
        try:
            client = self._admit()
        except Fault as fault:
            await self._refuse(fault)
            return
        try:
            await self._begin(client)
            await self._serve()
        except Fault as fault:
            await self._refuse(fault)
        finally:
            self._gateway.sockets.give_back(client.id)
            if self._live is not None:
                self._live.detach(self)

    def _admit(self) -> Client:
        """Who calls, with a place for the socket. Raises Fault."""
        if self._gateway.draining.is_set():
            raise Fault(503, "draining", RESTART)
        client = check_call(HTTPConnection(self._websocket.scope), self._gateway.settings)
        self._gateway.clients.admit(client.id)
        model = self._websocket.query_params.get("model")
        if model not in (None, "", self._gateway.host.name):
            raise Fault(404, "model_not_found", f"there is no model {model!r:.100}", param="model",
                        fix=nearest(model, [self._gateway.host.name]))
        self._gateway.sockets.take(client.id)
        return client

    async def _begin(self, client: Client) -> None:
        """A new session, or the one that the client comes back to."""
        asked = self._websocket.query_params
        if not (id := asked.get("anymodal_session")):
            self._live = self._lives.begin(client.id)
        else:
            last = asked.get("anymodal_last", "0")
            if not (last.isascii() and last.isdigit() and len(last) < 16):
                raise Fault(400, "invalid_value", f"anymodal_last is {last!r:.40}", param="anymodal_last",
                            fix="the anymodal.seq of the last event that was seen, 0 for none")
            try:
                live = await self._lives.find(id, asked.get("anymodal_token", ""), client.id)
            except Fault:
                raise
            except Exception as error:
                raise as_answer(error) from error
            await self._send(live.resumed(int(last)))
            self._live, self.cursor = live, max(int(last), live.outbox.first - 1)
            self._acked = live.safety.safe
        if self._live.ended:
            raise Fault(404, "session_gone", "the session has just ended", fix="begin a new one")
        self._allowed = self._live.outbox.last
        self._live.attach(self)

    async def _serve(self) -> None:
        """Read and write until either ends."""
        tasks = [asyncio.create_task(work(), name=f"{work.__name__} {self._live.id}")
                 for work in (self._read, self._write, self._watch_key)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Fault):
                raise outcome
            if isinstance(outcome, Exception) and not isinstance(outcome, WebSocketDisconnect):
                log.error("a socket failed", exc_info=outcome)
                raise as_answer(outcome)

    async def _watch_key(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            check_call(HTTPConnection(self._websocket.scope), self._gateway.settings)

    # -- in -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        settings = self._gateway.settings
        messages = Bucket(settings.messages_per_s, 2 * settings.messages_per_s)
        volume = Bucket(settings.most_bytes_per_s, 2 * settings.most_bytes_per_s)
        counted = self._gateway.metrics.bytes_in.labels("realtime")
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("text") if message.get("text") is not None else message.get("bytes") or b""
            counted.inc(len(data))
            for bucket, count in ((messages, 1), (volume, len(data))):
                if wait_s := bucket.take(count):  # not read meanwhile: TCP slows the sender down
                    await asyncio.sleep(wait_s)
                    bucket.take(count)
            await self._take(data)

    async def _take(self, data: str | bytes) -> None:
        try:
            if len(data) > LARGE:
                event = await self._gateway.pushes.run(p.client_events.validate_json, data)
            else:
                event = p.client_events.validate_json(data)
        except ValidationError as error:
            self._faults += 1
            fault, event_id = as_invalid(error, data)
            self._live.fail(fault, event_id)
            if self._faults > MOST_FAULTS:
                raise Fault(400, "too_many_faults", f"{MOST_FAULTS} messages in a row were no events",
                            fix="see docs/protocol.md") from None
            return
        self._faults = 0
        self._live.accept(event, len(data))

    # -- out ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._news.set()

    def leave(self, code: int, reason: str) -> None:
        self._leaving = self._leaving or (code, reason)
        self._news.set()

    async def _write(self) -> None:
        outbox = self._live.outbox
        while True:
            self._news.clear()
            while (text := self._next()) is not None:
                await self._send(text)
                self.cursor += 1
            if self._live.numbered and self._live.safety.safe > self._acked:
                self._acked = self._live.safety.safe
                await self._send(as_text(p.Ack, self.cursor, client_seq=self._acked))
            if self._leaving is not None and self.cursor >= outbox.last:
                await self._close(*self._leaving)
                return
            await self._news.wait()

    def _next(self) -> str | None:
        """The next event to be sent. Raises Fault for a client that has fallen too far behind."""
        outbox = self._live.outbox
        try:
            if outbox.last - max(self.cursor, self._allowed) > self._gateway.settings.queue:
                raise LookupError
            return outbox.after(self.cursor)
        except LookupError:
            raise Fault(429, "too_slow", f"{outbox.last - self.cursor} events were not read", retry_after_s=1.0,
                        fix="read faster; come back with your token for what is still kept") from None

    async def _send(self, text: str) -> None:
        """Raises Fault where the client does not take it in time."""
        try:
            async with asyncio.timeout(self._gateway.settings.read_timeout_s):
                await self._websocket.send_text(text)
        except TimeoutError:
            self._cut()
            raise Fault(429, "too_slow", "nothing was read for a while", retry_after_s=1.0) from None
        except RuntimeError as error:  # it was closed meanwhile
            raise WebSocketDisconnect from error

    async def _refuse(self, fault: Fault) -> None:
        """Tell what is wrong, and close."""
        self._gateway.metrics.refused.labels(fault.code).inc()
        code = 1012 if fault.code == "draining" else 1013 if fault.status in (429, 503) else 1008
        code = 1011 if fault.status in (500, 501) else code
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.send_text(as_text(p.ErrorEvent, self.cursor, error=as_fault(fault)))
                await self._close(code, f"{fault.code}: {fault}")
            return
        self._cut()

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is not WebSocketState.DISCONNECTED:
            with suppress(RuntimeError):
                await self._websocket.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))

    def _cut(self) -> None:
        """End the connection without a word: the other side takes none."""
        abort = self._websocket.scope.get("extensions", {}).get(ABORT)
        if abort is not None:
            abort()


def as_invalid(error: ValidationError, data: str | bytes) -> tuple[Fault, str | None]:
    """What is wrong with a message, and its event_id, if it has one."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind, where = first["type"], ".".join(str(part) for part in first["loc"][1:])
    if kind == "json_invalid":
        return Fault(400, "invalid_json", f"the message is no JSON text: {first['ctx']['error']}",
                     fix="one JSON object a message"), None
    event_id = _event_id(data)
    if kind in ("union_tag_invalid", "union_tag_not_found") and not where:
        tag = first.get("ctx", {}).get("tag")
        if tag is None:
            return Fault(400, "missing_type", "the event has no type", param="type", fix="see docs/protocol.md"), event_id
        return Fault(400, "unknown_event", f"there is no event {tag!r:.100}", param="type",
                     fix=nearest(str(tag)[:100], KNOWN)), event_id
    if not where:
        return Fault(400, "invalid_event", "the message is no JSON object", fix="one JSON object a message"), event_id
    message = f"{where}: {first['msg']}"[:500]
    return Fault(400, "invalid_value", message, param=where[:200], fix="see docs/protocol.md"), event_id


def _event_id(data: str | bytes) -> str | None:
    try:
        found = json.loads(data)["event_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found[:512] if isinstance(found, str) else None
