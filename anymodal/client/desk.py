"""Who waits for what of a live session: an answer, the reply to a command, or the next event of all."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from anymodal import protocol
from anymodal.client.asking import Asking, answer_of
from anymodal.client.errors import AnswerError, WaitedTooLongError, refusal_of_event
from anymodal.client.events import MediaDropped
from anymodal.errors import AnymodalError
from anymodal.types import Answer, Delta

ASK = "anymodal_ask"  # the key of an answer's metadata that says which question it is of
TAKEN = "conversation_already_has_active_response"


@dataclass(slots=True)
class _Waiter:
    match: Callable[[Any], Any]  # an event -> what was waited for, or None
    found: asyncio.Future[Any]


@dataclass(slots=True)
class _Asked:
    question: str
    extras: dict[str, Any]  # of protocol.AskExtras
    pieces: asyncio.Queue[Delta | Answer | AnymodalError] = field(default_factory=asyncio.Queue)
    text: str = ""
    name: str = ""
    response: str = ""
    given_up: bool = False


class Desk:
    """For one event loop. `put` sends an event of this side, `timeout_s` is for each reply and each piece of an answer.
    `events`: all that came and nobody fetched; past `most_events` the oldest go, and `events_dropped` counts them."""

    def __init__(self, put: Callable[[dict[str, Any]], Any], timeout_s: float, most_events: int) -> None:
        self._put, self._timeout_s, self._most_events = put, timeout_s, most_events
        self._ids = itertools.count(1)
        self._waiting: dict[str, _Waiter] = {}
        self._queue: deque[_Asked] = deque()  # a server answers one question of a session at a time
        self._active: _Asked | None = None
        self._moved_s = 0.0  # when answers last got on
        self.events: deque[Any] = deque()
        self.events_dropped = 0
        self.news = asyncio.Event()

    async def command(self, event: dict[str, Any], match: Callable[[Any], Any]) -> Any:
        """Send, and wait for the event that answers it. Raises RefusedError for the error that does."""
        name = self._new_id("do")
        waiter = self._waiting[name] = _Waiter(match, asyncio.get_running_loop().create_future())
        try:
            self._put({**event, "event_id": name})
            async with asyncio.timeout(self._timeout_s):
                return await waiter.found
        except TimeoutError as error:
            raise WaitedTooLongError(f"no word on {event['type']} for {self._timeout_s:g} s",
                                     fix="raise answer_timeout_s if the server is slow") from error
        finally:
            self._waiting.pop(name, None)

    def ask(self, question: str, extras: dict[str, Any]) -> Asking:
        """Asked at once, or when the questions before it are answered. `extras`: of protocol.AskExtras."""
        asked = _Asked(question, extras)
        if self._active is None and not self._queue:
            self._send(asked)
        else:
            self._queue.append(asked)

        async def cancel() -> None:
            self._give_up(asked)

        return Asking(self._pieces(asked), cancel)

    def take(self, event: Any) -> None:
        """An event that has come."""
        self._to_asked(event)
        self._to_waiting(event)
        if isinstance(event, MediaDropped) and self.events and isinstance(self.events[-1], MediaDropped):
            self.events.pop()  # the last tells all
        if len(self.events) >= self._most_events:
            self.events.popleft()
            self.events_dropped += 1
        self.events.append(event)
        self.news.set()

    def end(self, error: AnymodalError) -> None:
        """Nobody waits in vain."""
        for waiter in self._waiting.values():
            if not waiter.found.done():
                waiter.found.set_exception(error)
        for asked in (self._active, *self._queue):
            if asked is not None:
                asked.pieces.put_nowait(error)
        self._active = None
        self._queue.clear()
        self.news.set()

    def _to_waiting(self, event: Any) -> None:
        if isinstance(event, protocol.ErrorEvent):
            waiter = self._waiting.get(event.error.event_id or "")
            if waiter is not None and not waiter.found.done():
                waiter.found.set_exception(refusal_of_event(event.error))
            return
        for waiter in self._waiting.values():
            if not waiter.found.done() and (found := waiter.match(event)) is not None:
                waiter.found.set_result(found)
                return

    def _to_asked(self, event: Any) -> None:
        asked = self._active
        if isinstance(event, protocol.ResponseDone) and (asked is None or asked.response != event.response.id):
            if asked is None:
                self._send_next()  # it was in the way: somebody spoke, or asked from elsewhere
        elif asked is None:
            return
        elif isinstance(event, protocol.ErrorEvent) and event.error.event_id == asked.name:
            self._active = None
            if event.error.code == TAKEN:
                self._queue.appendleft(asked)
            else:
                asked.pieces.put_nowait(refusal_of_event(event.error))
                self._send_next()
        elif isinstance(event, protocol.ResponseCreated) and (event.response.metadata or {}).get(ASK) == asked.name:
            asked.response = event.response.id
            if asked.given_up:
                with suppress(AnymodalError):
                    self._give_up(asked)
        elif isinstance(event, protocol.TextDelta) and event.response_id == asked.response:
            self._moved_s = time.monotonic()
            asked.text += event.delta
            asked.pieces.put_nowait(Delta(event.delta))
        elif isinstance(event, protocol.ResponseDone):
            self._active = None
            asked.pieces.put_nowait(_done(asked, event.response))
            self._send_next()

    def _send(self, asked: _Asked) -> None:
        asked.name, self._moved_s = self._new_id("ask"), time.monotonic()
        item = {"role": "user", "content": [{"type": "input_text", "text": asked.question}]}
        self._put({"type": "response.create", "event_id": asked.name, "response": {
            "input": [item], "metadata": {ASK: asked.name}, "anymodal": asked.extras}})
        self._active = asked

    def _send_next(self) -> None:
        while self._queue and self._active is None:
            asked = self._queue.popleft()
            try:
                self._send(asked)
            except AnymodalError as error:
                asked.pieces.put_nowait(error)

    def _give_up(self, asked: _Asked) -> None:
        asked.given_up = True
        if asked in self._queue:
            self._queue.remove(asked)
            asked.pieces.put_nowait(AnswerError("the answer was cancelled: it was not begun"))
        elif asked is self._active and asked.response:
            self._put({"type": "response.cancel", "response_id": asked.response})

    async def _pieces(self, asked: _Asked) -> AsyncIterator[Delta | Answer]:
        """Waits for as long as answers get on: this one, or those before it."""
        while True:
            timeout_s = self._timeout_s + (self._active.extras.get("wait_s", 0.0) if self._active else 0.0)
            try:
                async with asyncio.timeout(max(0.0, self._moved_s + timeout_s - time.monotonic())):
                    piece = await asked.pieces.get()
            except TimeoutError as error:
                if time.monotonic() < self._moved_s + timeout_s:
                    continue
                self._let_go(asked)
                raise WaitedTooLongError(f"no answer to {asked.question!r:.100} for {timeout_s:g} s",
                                         fix="raise answer_timeout_s if the server is slow") from error
            if isinstance(piece, AnymodalError):
                raise piece
            yield piece
            if isinstance(piece, Answer):
                return

    def _let_go(self, asked: _Asked) -> None:
        """Nobody waits for it any more: those behind it have their turn."""
        with suppress(AnymodalError):
            self._give_up(asked)
        if asked is self._active:
            self._active = None
            self._send_next()

    def _new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}-{time.time_ns():x}"  # another process may go on with the session


def _done(asked: _Asked, response: protocol.Response) -> Answer | AnymodalError:
    if response.status == "completed":
        return answer_of(asked.question, asked.text, response.anymodal.model_dump() if response.anymodal else None)
    details = response.status_details or {}
    fault = details.get("error") or {}
    why = fault.get("message") or details.get("reason") or "the server did not say why"
    return AnswerError(f"the answer was {response.status}: {why}", text=asked.text, code=str(fault.get("code") or ""))
