"""A live session, which outlives its sockets: what it was sent, what it has to say, and what it takes to come back.

    socket --accept--> inbox --worker--> media --(threads)--> host's session --windows--> watch --\\
                                \\--> questions, rules, search ----------------------------> outbox --> socket, or the next

All of this is for the event loop alone; what takes longer than a moment is done by the gateway's threads, one piece of
work of a session at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from actors.gateway import dispatch
from actors.gateway.answers import Answers
from actors.gateway.context import Gateway
from actors.gateway.conversation import Conversation
from actors.gateway.faults import Fault, as_answer
from actors.gateway.hearing import Hearing, as_fault
from actors.gateway.hosts import HostSession
from actors.gateway.inbox import Inbox, Waiting
from actors.gateway.inputs import Inputs, Piece, Sound
from actors.gateway.limits import Bucket
from actors.gateway.outbox import Outbox, as_text
from actors.gateway.safety import Safety
from actors.gateway.telling import Telling
from actors.gateway.traces import Traces
from anymodal import protocol as p
from anymodal.errors import AnymodalError
from anymodal.protocol import ClientEvent

MOST_AHEAD = 64  # windows between what has come and what was seen: until then nothing more is taken out of the inbox
PATIENCE_S = 10.0  # for that
AWAY = "the client", "it was not connected"

log = logging.getLogger("anymodal")


class Socket(Protocol):
    """A connection that is attached to a session."""

    cursor: int  # the last number sent

    def wake(self) -> None:
        """There is something to send."""

    def leave(self, code: int, reason: str) -> None:
        """Close it, once what is due was sent."""


class Live:
    """`client_seq`: the client's newest number; `safety`: which need not be sent again; `telling`: what was told."""

    def __init__(self, gateway: Gateway, id: str, token: str, client: str, on_end: Callable[[Live], None]) -> None:
        settings = gateway.settings
        self.gateway, self.id, self.token, self.client, self._on_end = gateway, id, token, client, on_end
        self.outbox = Outbox(settings.sessions / f"{id}.live", settings.kept_events, self._wake)
        self.inputs = Inputs(gateway.host.spec, settings.most_pixels)
        self.inbox, self.safety, self.telling = Inbox(settings.stale_s), Safety(), Telling(self)
        self.traces = Traces(gateway.metrics.tracer, id, gateway.host.spec.window_s)
        self.answers, self.hearing = Answers(self), Hearing(self, gateway.speech)
        self.turn_detection: dict[str, Any] | None = {"type": "server_vad"} if self.hearing.speech else None
        self.instructions: str | None = None
        self.conversation = Conversation(self.outbox)
        self.client_seq, self.numbered = 0, False
        self.socket: Socket | None = None
        self.left_at_s = time.monotonic()
        self.ended = False
        self.bucket: Bucket | None = None  # of the client's requests
        self._session: HostSession | None = None
        self._opening = asyncio.Lock()
        self._away_s: float | None = None  # media time at which a client left that sends nothing again
        self._noting: asyncio.Task | None = None
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task] = []
        self._ending: asyncio.Task | None = None

    @property
    def end_s(self) -> float:
        """Media time seen and told."""
        return (self.telling.told + 1) * self.inputs.window_s

    @property
    def read_instructions(self) -> str | None:
        """Those that the model will read: one with a text template was made for them, others know nothing but questions."""
        return self.instructions if self.reads_instructions else None

    @property
    def reads_instructions(self) -> bool:
        return self.gateway.host.spec.prompt.template is not None

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"work {self.id}")]
        if self._session is not None:
            self._tasks.append(asyncio.create_task(self.telling.watch(), name=f"watch {self.id}"))

    # -- sockets ------------------------------------------------------------------------------------------------

    def attach(self, socket: Socket) -> None:
        """The newest connection is the one: who knows the token is the same client."""
        if self.socket is not None:
            self.socket.leave(1008, "replaced: the session was gone on with from another connection")
        self.socket = socket
        if not self.numbered:  # what was said meanwhile is lost
            self.inputs.sound_s = max(self.inputs.sound_s, self.inputs.now_s if self.inputs.sound_s else 0.0)
        if self._away_s is not None:
            self._missing(self._away_s, self.inputs.now_s)
            self._away_s = None

    def detach(self, socket: Socket) -> None:
        if self.socket is socket:
            self.socket, self.left_at_s = None, time.monotonic()
            if self._session is not None and not self.ended:
                self._away_s = self.inputs.now_s
                self._missing(self._away_s)

    def _missing(self, start_s: float, end_s: float = math.inf) -> None:
        """What a gap's windows will say, if they have nothing: told in passing, the socket does not wait for it."""
        before = self._noting

        async def note() -> None:
            if before is not None:
                await asyncio.wait([before])
            with suppress(AnymodalError):
                await self.gateway.pushes.run(self._session.missing, *AWAY, start_s, end_s)

        task = self._noting = asyncio.create_task(note(), name=f"missing {self.id}")
        self.gateway.tasks.add(task)
        task.add_done_callback(self.gateway.tasks.discard)

    def _wake(self) -> None:
        if self.socket is not None:
            self.socket.wake()

    def describe(self) -> p.SessionConfig:
        settings, sound = self.gateway.settings, self.inputs
        speech = self.hearing.speech
        audio = {"input": {"format": sound.sound.format, "turn_detection": self.turn_detection,
                           "transcription": {"model": speech.name} if speech else None}}
        extras = p.SessionExtras(streams=sound.streams, id=self.id, token=self.token, wants=sound.wants,
                                 window_s=sound.window_s, end_s=self.end_s, speech=speech.name if speech else None,
                                 resumable_s=settings.resumable_s)
        return p.SessionConfig(id=self.id, model=self.gateway.host.name, output_modalities=("text",),
                               instructions=self.instructions, audio=audio, anymodal=extras)

    def resumed(self, last: int) -> str:
        """The first text for a client that has come back and has seen up to a number."""
        self.outbox.skip_to(last)
        lost = max(0, self.outbox.first - 1 - last)
        return as_text(p.Resumed, last, session=self.describe(), client_seq=self.client_seq, lost=lost)

    # -- in -----------------------------------------------------------------------------------------------------

    def accept(self, event: ClientEvent, size: int) -> None:
        """Take an event of the client: now, or never. What is wrong with it is told by an event."""
        number = event.anymodal.seq if event.anymodal else 0
        if number:
            self.numbered = True
            if number <= self.client_seq:
                return
            self.client_seq = number
        if 0 < number <= self.safety.done and not dispatch.is_media(event):
            return  # it was done by the process before this one
        try:
            waiting = Waiting(event, dispatch.place(self, event), size, dispatch.flushes(self, event))
            self.gateway.metrics.drops.labels("shed").inc(self.inbox.put(waiting))
            self.traces.come(waiting.pieces)
            if waiting.flush:
                self.inputs.flush()
        except Fault as fault:
            if fault.code == "clock_back":
                kind = "audio" if isinstance(event, p.AudioAppend) else "video"
                self.inbox.shed[getattr(event, "stream", None) or self.inputs.first_of(kind) or ""] += 1
                self.gateway.metrics.drops.labels("late").inc()
            self.fail(fault, event.event_id)
            return
        if number:
            self.safety.note(number, waiting.pieces, is_media=waiting.is_media, sound_s=self.inputs.sound_s)

    # -- working on it ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            batch = await self.inbox.next()
            self.gateway.metrics.drops.labels("stale").inc(self.inbox.stale)
            self.inbox.stale = 0
            try:
                if batch[0].is_media:
                    await self._keep_pace()
                    await self._take([(w, piece) for w in batch for piece in w.pieces])
                else:
                    await dispatch.handle(self, batch[0])
            except Exception as error:
                self.fail(as_answer(error), batch[0].event.event_id)
            if not batch[0].is_media:
                self.safety.finished(batch[0].number)
                self.save()

    async def _keep_pace(self) -> None:
        """Wait for windows to be seen: a clock may have run far ahead in little media."""
        await self.told_until(self.inputs.newest_s - MOST_AHEAD * self.inputs.window_s, PATIENCE_S)

    async def told_until(self, end_s: float, patience_s: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait for windows up to a time to be told, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self.end_s < end_s - 1e-6 and not stopped():
                    await self._look.wait()

    def look_again(self) -> None:
        """Let those who wait in `told_until` look whether they still have to."""
        self._look.set()
        self._look = asyncio.Event()

    async def _take(self, pieces: list[tuple[Waiting, Piece]]) -> None:
        """Decode media and hand them to the session."""
        session = await self.session()
        with self.gateway.metrics.stage("take"):
            wrong, heard = await self.gateway.pushes.run(self._push, session, pieces)
        for waiting, error in wrong:
            fault = as_answer(error)
            self.gateway.metrics.drops.labels("late" if "too late" in fault.message else "malformed").inc()
            self.safety.refused(waiting.number)
            self.fail(fault, waiting.event.event_id)
        self.traces.taken(piece for _, piece in pieces)
        for event in heard:
            await self.hearing.heard(event)

    def _push(self, session: HostSession, pieces: list[tuple[Waiting, Piece]]) -> tuple[list, list]:
        """In a thread: what was wrong with which, and what was heard."""
        wrong: list[tuple[Waiting, AnymodalError]] = []
        heard: list[Any] = []
        for waiting, piece in pieces:
            try:
                values = self.inputs.unpacked(piece)
                if piece.sound:
                    heard += self.hearing.hear(values, piece.pts_s, piece.rate_hz)
                packets = self.inputs.packets(piece, values)
                wrong += [(waiting, error) for error in session.push(packets)]
                for packet in packets:
                    self.gateway.metrics.packets.labels(packet.modality).inc()
            except AnymodalError as error:
                wrong.append((waiting, error))
        return wrong, heard

    async def take_now(self, waiting: Waiting) -> None:
        """The pictures of a message."""
        await self._keep_pace()
        await self._take([(waiting, piece) for piece in waiting.pieces])

    async def session(self) -> HostSession:
        """The host's session, begun when it is first needed: until then its streams may be declared."""
        async with self._opening:
            if self._session is None:
                await self._open()
                self._tasks.append(asyncio.create_task(self.telling.watch(), name=f"watch {self.id}"))
        return self._session

    async def _open(self) -> None:
        session = await self.gateway.pushes.run(partial(
            self.gateway.host.open, self.id, streams=self.inputs.streams, live=True,
            idle_timeout_s=self.gateway.settings.idle_timeout_s, stale_s=self.gateway.settings.stale_s))
        if self.numbered:  # what is missing will be sent again
            await self.gateway.pushes.run(session.be_patient)
        self._session = session

    @property
    def opened(self) -> bool:
        return self._session is not None or self._opening.locked()

    # -- out ----------------------------------------------------------------------------------------------------

    def tell_limits(self) -> None:
        if (bucket := self.bucket) is None:
            return
        self.outbox.put(p.RateLimitsUpdated, rate_limits=(p.RateLimit(
            name="requests", limit=round(bucket.size), remaining=max(0, int(bucket.left)),
            reset_seconds=round((bucket.size - bucket.left) / bucket.rate, 3)),))

    def fail(self, fault: Fault, event_id: str | None = None) -> None:
        self.gateway.metrics.refused.labels(fault.code).inc()
        self.outbox.put(p.ErrorEvent, error=as_fault(fault, event_id))

    # -- what is safe -------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Note what a new process needs: written before any of it can be seen by the client."""
        if self.ended:
            return
        safety, talk, running = self.safety, self.conversation, self.answers.running
        safety.told_until(self.end_s, self.client_seq)
        self.outbox.save({
            "client": self.client, "token": dispatch.digest(self.token), "bundle": self.gateway.host.name,
            "streams": self.inputs.streams if self.inputs.declared else None, "opened": self._session is not None,
            "instructions": self.instructions, "turn_detection": self.turn_detection, "sound": asdict(self.inputs.sound),
            "question": talk.question, "question_item": talk.question_item, "last_item": talk.last_item,
            "told": self.telling.told, "numbered": self.numbered,
            "safe": safety.safe, "done": safety.done,
            "sound_s": safety.sound_s if self.numbered else self.inputs.sound_s,
            "newest_s": self.inputs.newest_s, "at": time.time(), "rules": self.telling.rules,
            "running": None if running is None else asdict(running)})
        self._wake()

    async def restore(self, noted: dict[str, Any]) -> None:
        """Go on from a checkpoint in a new process. Raises LogError where the session's log cannot be used."""
        self.instructions, self.turn_detection = noted["instructions"], noted["turn_detection"]
        self.conversation.restore(noted, self.outbox.events())
        self.telling.told = noted["told"]
        self.numbered, self.safety.done = noted["numbered"], noted["done"]
        self.safety.safe = self.client_seq = noted["safe"]
        self.telling.rules = {name: tuple(rule) for name, rule in noted["rules"].items()}
        if noted["streams"]:
            self.inputs.use(noted["streams"])
        self.inputs.sound, self.inputs.sound_s = Sound(**noted.get("sound", {})), noted["sound_s"]
        self.safety.sound_s = noted["sound_s"]
        if noted["opened"]:
            await self._open()
            windows, began = await self.gateway.pushes.run(lambda: (self._session.windows, self._session.events()))
            self.inputs.resume(windows * self.inputs.window_s, noted["newest_s"], time.time() - noted["at"])
            for event in began:
                self.telling.rule(event)
        if noted["running"]:
            self.answers.resume(noted["running"])

    # -- ending -------------------------------------------------------------------------------------------------

    async def leave(self, code: int, reason: str) -> None:
        """This process ends, the session does not: what is under way is gone on with by the next one."""
        if not self.numbered and self._session is not None:  # nobody will send it again
            await self.gateway.asks.run(self._session.flush)
            for window in await self.gateway.asks.run(self._session.seen, self.telling.told):
                self.telling.window(window)
        self.save()
        await self._stop(code, reason)
        if self._session is not None:
            await self.gateway.asks.run(self._session.close)
        self.outbox.close()

    def end_soon(self) -> None:
        self._ending = asyncio.create_task(self.end(), name=f"end {self.id}")

    async def end(self, code: int = 1000, reason: str = "the session is over") -> None:
        """For good: nothing of it is kept."""
        if self.ended:
            return
        self.ended = True
        self._on_end(self)
        await self._stop(code, reason)
        try:
            if self._session is not None:
                await self.gateway.asks.run(self._session.forget)
        except AnymodalError as error:
            log.warning("session %s is left behind: %s", self.id, error)
        finally:
            self.outbox.forget()

    async def _stop(self, code: int, reason: str) -> None:
        if self.socket is not None:
            self.socket.leave(code, reason)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self.answers.close()
        await self.hearing.close()
