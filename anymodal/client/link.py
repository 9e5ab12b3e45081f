"""A live session's connection, as often as it takes: numbered events out and in, each once and in order.

    put ---> Outbox ---> _send_all ---> | socket | ---> _receive_all ---> on_event
                ^ rewind, safe <--------------------- resumed, ack

Lost, it comes back with the session's token and the last number it saw; `anymodal.resumed` then says what has to be sent
again. It gives up when nothing has moved for `reconnect_s`, or when the server says that there is no use.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from anymodal.client.errors import (
    ClientError,
    ClosedError,
    InvalidError,
    OverloadedError,
    ProtocolError,
    ServerFaultError,
    SessionGoneError,
    UnreachableError,
    WaitedTooLongError,
    refusal_of_event,
)
from anymodal.client.events import ConnectionBack, ConnectionLost, MediaDropped, number_of, read_event
from anymodal.client.options import Backoff, Options
from anymodal.client.outbox import Outbox
from anymodal.client.transport import Connection, DroppedError, Transport
from anymodal.errors import AnymodalError, PacketError
from anymodal.protocol import Ack, ErrorEvent, Fault, Resumed, SessionConfig, SessionCreated, client_events

OVER = 1000  # the server ended the session itself
USELESS = {1002: "the protocol was broken", 1003: "it takes no such message", 1007: "a message was no text",
           1008: "it does not allow it", 1009: "a message was too large", 1010: "it lacks an extension"}
STEADY_S = 5.0  # a connection that held for so long was no failure


@dataclass(frozen=True, slots=True)
class Ticket:
    """What to come back to a session with, also from another process: `last` is the last event seen."""

    id: str
    token: str
    last: int = 0


class Link:
    """For one event loop. `session`: as the server tells it. `error`: what ended it for good."""

    def __init__(self, transport: Transport, url: str, query: Mapping[str, str], headers: Mapping[str, str],
                 options: Options, on_event: Callable[[Any], None], on_end: Callable[[AnymodalError], None],
                 ticket: Ticket | None = None) -> None:
        self._transport, self._url, self._headers = transport, url, dict(headers)
        self._query, self._options, self._on_event, self._on_end = dict(query), options, on_event, on_end
        self._ticket = ticket
        self.last = ticket.last if ticket else 0  # the number of the last event that came
        self.events_lost = 0
        self.reconnections = 0
        self.session: SessionConfig | None = None
        self.error: AnymodalError | None = None
        self.connected = asyncio.Event()
        self.outbox: Outbox | None = None  # once the server has said where numbers go on
        self._closing = False
        self._last_word: Fault | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def ticket(self) -> Ticket:
        if self._ticket is None:
            raise ClosedError("there is no session yet", fix="async with client.live() as session:")
        return Ticket(self._ticket.id, self._ticket.token, self.last)

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.outbox.dropped) if self.outbox else {}

    async def start(self) -> None:
        """Connect once; from then on it keeps itself connected. Raises ClientError."""
        connection, first = await self._connect()
        self._welcome(first)
        self._task = asyncio.create_task(self._run(connection), name="anymodal link")

    def put(self, event: dict[str, Any], stream: str | None = None) -> int:
        """Send an event, now or when there is a connection again; never waits. Raises ClientError, PacketError."""
        self.check()
        event = client_events.validate_python({**event, "anymodal": {"seq": self.outbox.next_seq}})
        text = event.model_dump_json(exclude_none=True)
        if len(text) > self._options.message_bytes:
            raise PacketError(f"a message of {len(text)} bytes is over the limit of {self._options.message_bytes}",
                              fix="send smaller frames or fewer samples at once, or raise message_bytes here and there")
        before = self.outbox.dropped.total()
        seq = self.outbox.put(text, stream)
        if self.outbox.dropped.total() > before:
            self._on_event(MediaDropped(self.dropped))
        return seq

    def check(self) -> None:
        """Raises what ended it."""
        if self.error is not None:
            raise self.error
        if self._task is None or self._closing:
            raise ClosedError("the session is closed", fix="open one: async with client.live() as session:")

    async def close(self, last_words: dict[str, Any] | None = None) -> None:
        """Say the last words, send what waits for no longer than `close_timeout_s`, and end. May be called twice."""
        task = self._task
        if task is not None and not task.done() and not self._closing:
            with contextlib.suppress(ClientError):
                if last_words:
                    self.put(last_words)
            self._closing = True
            emptied = asyncio.create_task(self.outbox.emptied())
            await asyncio.wait([task, emptied], timeout=self._options.close_timeout_s,
                               return_when=asyncio.FIRST_COMPLETED)
            emptied.cancel()
        self._closing = True
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # -- life ----------------------------------------------------------------------------------------------------

    async def _run(self, connection: Connection) -> None:
        """From connection to connection, until it is closed or there is no use."""
        backoff = Backoff(self._options.backoff_first_s, self._options.backoff_most_s)
        moved_s = time.monotonic()  # when something last went on
        try:
            while True:
                before, began_s = self._progress(), time.monotonic()
                why = await self._serve(connection)
                lost_s = time.monotonic()
                if self._progress() != before or lost_s - began_s > STEADY_S:
                    backoff.reset()
                    moved_s = lost_s
                self._end_if_useless(why)
                self.connected.clear()
                self._on_event(ConnectionLost(str(why)))
                connection, first = await self._reconnect(backoff, moved_s, why)
                self._welcome(first, time.monotonic() - lost_s)
        except AnymodalError as error:
            self._end(error)
        except Exception as error:  # a mistake of ours must not look like silence
            failed = ClientError(f"the client failed: {type(error).__name__}: {error}")
            failed.__cause__ = error
            self._end(failed)
        finally:
            self.connected.clear()

    def _end(self, error: AnymodalError) -> None:
        if not self._closing:  # then it was meant
            self.error = error
            self._on_end(error)

    def _progress(self) -> tuple[int, int]:
        return self.last, self.outbox.oldest

    async def _serve(self, connection: Connection) -> DroppedError:
        """Both ways until the connection drops; says how."""
        self.connected.set()
        self._last_word = None
        tasks = [asyncio.create_task(self._receive_all(connection)), asyncio.create_task(self._send_all(connection))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            faults = [task.exception() for task in done]
            # what closed a connection is known to the one that reads
            return next((f for f in faults if isinstance(f, DroppedError)), None) or _raise(faults[0])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close(connection, self._options)

    async def _send_all(self, connection: Connection) -> None:
        while True:
            parcel = await self.outbox.take()
            await connection.send(parcel.text)

    async def _receive_all(self, connection: Connection) -> None:
        while True:
            text = await connection.receive()
            try:
                self._take(read_event(text))
            except ProtocolError as error:
                raise DroppedError(1006, error.message) from error  # what was lost with it comes again

    def _take(self, event: Any) -> None:
        if isinstance(event, Ack):
            self.outbox.safe(event.client_seq)
            return
        number = number_of(event)
        if isinstance(event, Resumed) or number <= self.last:
            if isinstance(event, ErrorEvent):  # of the connection: why it is closed now
                self._last_word = event.error
            return  # had before
        self.events_lost += number - self.last - 1
        self.last = number
        self._note(event)
        self._on_event(event)

    def _note(self, event: Any) -> None:
        if event.type in ("session.created", "session.updated"):
            self.session = event.session

    # -- connecting ----------------------------------------------------------------------------------------------

    async def _connect(self) -> tuple[Connection, Any]:
        """A connection and its first event. Raises ClientError."""
        query = dict(self._query)
        if self._ticket is not None:
            query |= {"anymodal_session": self._ticket.id, "anymodal_token": self._ticket.token,
                      "anymodal_last": str(self.last)}
        url = f"{self._url}?{urlencode(query)}" if query else self._url
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                connection = await self._transport.connect(url, self._headers, self._options)
                try:
                    return connection, await self._first_of(connection)
                except BaseException:
                    await _close(connection, self._options)
                    raise
        except TimeoutError as error:
            raise UnreachableError(f"{self._url} said nothing for {self._options.connect_timeout_s:g} s",
                                   fix="is it an anymodal server? raise connect_timeout_s if it is slow") from error

    async def _first_of(self, connection: Connection) -> Any:
        try:
            event = read_event(await connection.receive())
        except DroppedError as drop:
            raise _of_close(drop) from drop
        if isinstance(event, ErrorEvent):
            raise _refusal(event.error)
        if not isinstance(event, Resumed if self._ticket else SessionCreated):
            raise ProtocolError(f"the server began with {event.type!r}", fix="is it an anymodal server?")
        return event

    def _welcome(self, first: Any, down_s: float = 0.0) -> None:
        """What the first event of a connection means for what is sent and what was missed."""
        self.session = first.session
        if isinstance(first, Resumed):
            if self.outbox is None:
                self.outbox = Outbox(self._options.buffer_bytes, first.client_seq + 1)
            before = self.outbox.dropped.total()
            self.outbox.rewind(first.client_seq)
            self.last += first.lost
            self.events_lost += first.lost
            self.reconnections += 1
            self._on_event(ConnectionBack(down_s, first.lost))
            if self.outbox.dropped.total() > before:
                self._on_event(MediaDropped(self.dropped))
            return
        extras = first.session.anymodal
        if extras is None or not extras.id or not extras.token:
            raise ProtocolError("the server did not say how to come back", fix="is it an anymodal server?")
        self._ticket = Ticket(extras.id, extras.token)
        self.outbox = Outbox(self._options.buffer_bytes)
        self._take(first)

    async def _reconnect(self, backoff: Backoff, moved_s: float, why: Exception) -> tuple[Connection, Any]:
        """Try until it works. Raises UnreachableError once nothing has moved for long, and what there is no use against."""
        wait_s = backoff.next_s()
        while time.monotonic() + wait_s - moved_s < self._options.reconnect_s:
            await asyncio.sleep(wait_s)
            try:
                return await self._connect()
            except (UnreachableError, OverloadedError, ServerFaultError, ProtocolError) as error:
                why, wait_s = error, max(backoff.next_s(), getattr(error, "retry_after_s", None) or 0.0)
        raise UnreachableError(f"the connection was lost and not had again in {self._options.reconnect_s:g} s: {why}",
                               fix="is the server running?")

    def _end_if_useless(self, drop: DroppedError) -> None:
        error, word = _of_close(drop), self._last_word
        if not isinstance(error, UnreachableError | OverloadedError):
            raise _refusal(word) if word is not None and isinstance(error, InvalidError) else error


def _refusal(fault: Fault) -> ClientError:
    if fault.code == "session_gone":
        return SessionGoneError(f"the session is gone: {fault.message}")
    return refusal_of_event(fault)


def _of_close(drop: DroppedError) -> ClientError:
    """What a close code means: UnreachableError and OverloadedError are worth another try."""
    if drop.code == OVER:
        return SessionGoneError(f"the server ended the session: {drop.reason or 'it said no more'}", fix="open a new one")
    if drop.code in (1012, 1013):
        return OverloadedError(drop.reason or "the server is busy", status=503, code=str(drop.code))
    if drop.code in USELESS or drop.code >= 3000:
        why = drop.reason or USELESS.get(drop.code, "it said no more")
        return InvalidError(f"the server closed the connection ({drop.code}): {why}", code=str(drop.code))
    return UnreachableError(f"the connection was lost: {drop}")


def _raise(error: BaseException | None) -> Any:
    raise error or WaitedTooLongError("the connection ended without a word")


async def _close(connection: Connection, options: Options) -> None:
    """Hang up, in a bounded time; that it is gone already is no matter."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(options.close_timeout_s):
            await connection.close()
