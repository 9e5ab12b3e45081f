"""An answer of a live session as `response.*` events. One at a time, as OpenAI's conversations have it."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from actors.gateway.faults import Fault, as_answer
from anymodal import protocol as p
from anymodal.types import Answer

if TYPE_CHECKING:
    from actors.gateway.live import Live

CATCH_UP_S = 0.5  # how long an answer waits for windows that are whole and not yet seen
CANCELLED = {"client": "client_cancelled", "speech": "turn_detected"}


@dataclass
class Running:
    """An answer on its way. `question` may still be being heard. `as_of_s`: what it had seen when it was begun."""

    question: str
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex[:20]}")
    item: str = field(default_factory=lambda: f"item_{uuid.uuid4().hex[:20]}")
    at_s: float | None = None
    as_of_s: float = 0.0
    wait_s: float = 0.0
    dialogue: str | None = None
    metadata: dict[str, str] | None = None
    instructions: str | None = None  # read before the question, by models that know what to make of them

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return f"{self.instructions.strip()}\n\n{self.question}" if (self.instructions or "").strip() else self.question


class Answers:
    """The answers of one session. For the event loop."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.running: Running | None = None
        self._task: asyncio.Task | None = None
        self._asking: Any = None
        self._why = ""  # it was cancelled

    def begin(self, running: Running, question: Awaitable[str] | None = None) -> None:
        """Raises Fault (409) while there is one. `question`: waited for, where it is not known yet."""
        if self.running is not None:
            raise Fault(409, "conversation_already_has_active_response", f"{self.running.id} is not done yet",
                        fix="wait for its response.done, or cancel it")
        running.as_of_s = self._live.end_s if running.at_s is None else running.at_s
        self.running, self._why = running, ""
        put = self._live.outbox.put
        item = p.Item(id=running.item, role="assistant", status="in_progress", content=())
        put(p.ResponseCreated, response=p.Response(id=running.id, status="in_progress", metadata=running.metadata))
        put(p.OutputItemAdded, response_id=running.id, item=item)
        self._live.conversation.add(item, whole=False)
        put(p.ContentPartAdded, response_id=running.id, item_id=running.item, part=p.OutputText())
        self._task = asyncio.create_task(self._run(running, question, ""))

    def resume(self, noted: dict[str, Any]) -> None:
        """Ask again what was being answered when the process ended; text that was given is not given twice."""
        running = self.running = Running(**noted)
        said, done = "", False
        for event in self._live.outbox.events():
            if event.get("response_id") == running.id:
                said += event["delta"] if event["type"] == "response.output_text.delta" else ""
                done = done or event["type"] == "response.output_text.done"
        self._task = asyncio.create_task(self._run(running, None, said))

    async def cancel(self, why: str, response_id: str | None = None) -> None:
        """Raises Fault where there is none."""
        if self.running is None or response_id not in (None, self.running.id):
            raise Fault(404, "response_cancel_not_active", "there is no such response in progress",
                        param="response_id", fix="it may just have ended")
        self._why = self._why or CANCELLED[why]
        self._live.look_again()
        if self._asking is not None:
            await self._live.gateway.asks.run(self._asking.cancel)

    async def interrupt(self, why: str) -> None:
        """Cancel what is being answered, if anything, and wait for its end."""
        if self.running is not None:
            await self.cancel(why)
            await self.ended()

    async def ended(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._live.gateway.settings.answer_timeout_s)

    async def close(self) -> None:
        """No more events: the session ends with this process, or for good."""
        if self._task is not None:
            self._task.cancel()
            if self._asking is not None:
                await self._live.gateway.asks.run(self._asking.cancel)
            await asyncio.gather(self._task, return_exceptions=True)

    # -- on its way ---------------------------------------------------------------------------------------------

    async def _run(self, running: Running, question: Awaitable[str] | None, said: str) -> None:
        """`said`: what the client has of it already."""
        began_s, first_s = time.perf_counter(), 0.0
        answer, fault = None, None
        with self._live.traces.answer(running.id, running.question) as span:
            try:
                async with asyncio.timeout(self._live.gateway.settings.answer_timeout_s + running.wait_s):
                    async for piece in self._new_pieces(running, question, said):
                        if isinstance(piece, Answer):
                            answer = piece
                            continue
                        if not first_s:
                            first_s = time.perf_counter() - began_s
                            if span is not None:
                                span.add_event("first_token")
                        self._tell(running, piece)
                        said += piece
            except TimeoutError:
                fault = Fault(503, "answer_timeout", "the answer took too long", fix="ask again")
            except Exception as error:
                fault = as_answer(error)
            self._done(running, said, answer, fault, first_s)
            status = "failed" if fault else "completed" if answer else "cancelled"
            if span is not None:
                span.set_attributes({"anymodal.status": status, "anymodal.stale_s": answer.stale_s if answer else 0.0,
                                     "anymodal.last_window": answer.last_window if answer else -1})
        metrics = self._live.gateway.metrics
        metrics.answers.labels("live", status).inc()
        metrics.answer_time.labels("live").observe(time.perf_counter() - began_s)
        if first_s:
            metrics.first_token.labels("live").observe(first_s)

    async def _new_pieces(self, running: Running, question: Awaitable[str] | None, said: str) -> AsyncIterator[Any]:
        """Text behind what the client has already, then the Answer. Raises Fault where it comes out differently."""
        text = ""
        async for piece in self._pieces(running, question, again=bool(said)):
            if isinstance(piece, Answer):
                yield piece
                continue
            text += piece.text
            if not (text.startswith(said) or said.startswith(text)):
                raise Fault(503, "answer_lost", "the server was restarted, and the answer came out differently",
                            fix="ask again")
            if len(text) > len(said):
                new, said = text[len(said):], text
                yield new

    async def _pieces(self, running: Running, question: Awaitable[str] | None, again: bool) -> Any:
        """Deltas, then the Answer, unless it is cancelled before."""
        asks = self._live.gateway.asks
        if question is not None:
            running.question = await question
            self._live.save()
        if not self._why:
            await self._caught_up(running)
        if self._why:
            return
        at_s = running.as_of_s if again else running.at_s
        session = await self._live.session()
        asking = self._asking = await asks.run(
            lambda: session.stream(running.prompt, at_s=at_s, dialogue=running.dialogue))
        try:
            if self._why:  # it was cancelled meanwhile
                await asks.run(asking.cancel)
            async for piece in asks.pieces(asking):
                yield piece
        finally:
            self._asking = None

    async def _caught_up(self, running: Running) -> None:
        """Wait for an `at_s` that has not come, no thread held meanwhile; else, for a moment, for what is whole already."""
        wanted_s, patience_s = running.at_s, running.wait_s
        if wanted_s is None:
            wanted_s, patience_s = self._live.inputs.whole_s, CATCH_UP_S
        window_s = self._live.inputs.window_s
        await self._live.told_until(math.floor(wanted_s / window_s + 1e-6) * window_s, patience_s, lambda: bool(self._why))

    # -- as events ----------------------------------------------------------------------------------------------

    def _tell(self, running: Running, text: str) -> None:
        self._live.outbox.put(p.TextDelta, response_id=running.id, item_id=running.item, delta=text)

    def _done(self, running: Running, said: str, answer: Answer | None, fault: Fault | None, first_s: float) -> None:
        put, about = self._live.outbox.put, {"response_id": running.id, "item_id": running.item}
        part = p.OutputText(text=answer.text if answer else said)
        item = p.Item(id=running.item, role="assistant", status="completed" if answer else "incomplete", content=(part,))
        put(p.TextDone, text=part.text, **about)
        put(p.ContentPartDone, part=part, **about)
        self._live.conversation.done(item)
        put(p.OutputItemDone, response_id=running.id, item=item)
        status, details = "completed", None
        if fault is not None:
            error = {"type": fault.kind, "code": fault.code, "message": str(fault)}
            status, details = "failed", {"type": "failed", "error": error}
        elif answer is None:
            status, details = "cancelled", {"type": "cancelled", "reason": self._why or "client_cancelled"}
        put(p.ResponseDone, response=p.Response(
            id=running.id, status=status, status_details=details, output=(item,), metadata=running.metadata,
            usage=self._usage(running, part.text), anymodal=answer and extras(answer, first_s, self._live.inputs.window_s)))
        self.running = None
        self._live.save()
        self._live.tell_limits()

    def _usage(self, running: Running, text: str) -> dict[str, Any]:
        encode = self._live.gateway.host.tokenizer.encode
        read, written = len(encode(running.prompt)), len(encode(text))
        for kind, count in (("prompt", read), ("completion", written)):
            self._live.gateway.metrics.tokens.labels(kind).inc(count)
        return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def extras(answer: Answer, first_s: float, window_s: float) -> p.AnswerExtras:
    """What an answer stands on."""
    evidence = tuple(p.Span(**asdict(span)) for span in answer.evidence)
    last = -1 if answer.last_window is None else answer.last_window
    return p.AnswerExtras(
        confidence=answer.confidence, evidence=evidence, at_s=(last + 1) * window_s, last_window=last,
        windows_missing=answer.windows_missing, stale_s=answer.stale_s, frames_seen=answer.frames_seen,
        frames_dropped=answer.frames_dropped, time_to_first_token_s=round(first_s, 4), windows_seen=answer.windows_seen,
        windows=answer.windows or None)
