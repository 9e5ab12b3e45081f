"""A live session, which outlives its sockets: what it was sent, what it has to say, and what it takes to come back.

    socket --accept--> inbox --worker--> media --(threads)--> host's session --windows--> watch --\\
                                \\--> questions, rules, search ----------------------------> outbox --> socket, or the next

All of this is for the event loop alone; what takes longer than a moment is done by the gateway's threads, one piece of
work of a session at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from actors.gateway import dispatch
from actors.gateway.answers import Answers
from actors.gateway.context import Gateway
from actors.gateway.faults import Fault, as_answer
from actors.gateway.hearing import Hearing, as_fault
from actors.gateway.hosts import HostSession
from actors.gateway.inbox import Inbox, Waiting
from actors.gateway.inputs import Inputs, Piece
from actors.gateway.limits import Bucket
from actors.gateway.outbox import Outbox, as_text
from anymodal import protocol as p
from anymodal.errors import AnymodalError, RuntimeFault, SessionError
from anymodal.protocol import ClientEvent
from anymodal.session.news import Seen

MOST_PENDING = 4096  # of a client's numbers that are not yet safe; older ones count as if they were
MOST_AHEAD = 64  # windows between what has come and what was seen: until then nothing more is taken out of the inbox
PATIENCE_S = 10.0  # for that
NEWS_WAIT_S, RETRY_S = 1.0, 0.25

log = logging.getLogger("anymodal")


class Socket(Protocol):
    """A connection that is attached to a session."""

    cursor: int  # the last number sent

    def wake(self) -> None:
        """There is something to send."""

    def leave(self, code: int, reason: str) -> None:
        """Close it, once what is due was sent."""


class Live:
    """`told`: the last window that was told; `safe`: the client's number up to which nothing has to be sent again."""

    def __init__(self, gateway: Gateway, id: str, token: str, client: str, on_end: Callable[[Live], None]) -> None:
        settings = gateway.settings
        self.gateway, self.id, self.token, self.client, self._on_end = gateway, id, token, client, on_end
        self.outbox = Outbox(settings.sessions / f"{id}.live", settings.kept_events, self._wake)
        self.inputs = Inputs(gateway.host.spec, settings.most_pixels)
        self.answers, self.hearing = Answers(self), Hearing(self, gateway.speech)
        self.turn_detection: dict[str, Any] | None = {"type": "server_vad"} if self.hearing.speech else None
        self.instructions: str | None = None
        self.question, self.last_item = "", None  # what a response is made of
        self.told, self.client_seq, self.done_seq, self.safe = -1, 0, 0, 0
        self.numbered = False
        self.socket: Socket | None = None
        self.left_at_s = time.monotonic()
        self.ended = False
        self.bucket: Bucket | None = None  # of the client's requests
        self._session: HostSession | None = None
        self._opening = asyncio.Lock()
        self._inbox = Inbox()
        self._pending: OrderedDict[int, float] = OrderedDict()  # number -> media time at which it is safe
        self._sound_at: deque[tuple[int, float]] = deque()  # number -> where input_audio_buffer goes on behind it
        self._sound_s = 0.0  # the same of `safe`
        self._rules: dict[str, tuple[str, float]] = {}  # name -> text, and the time of the last event told
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task] = []
        self._ending: asyncio.Task | None = None

    @property
    def end_s(self) -> float:
        """Media time seen and told."""
        return (self.told + 1) * self.inputs.window_s

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"work {self.id}")]
        if self._session is not None:
            self._tasks.append(asyncio.create_task(self._watch(), name=f"watch {self.id}"))

    # -- sockets ------------------------------------------------------------------------------------------------

    def attach(self, socket: Socket) -> None:
        """The newest connection is the one: who knows the token is the same client."""
        if self.socket is not None:
            self.socket.leave(1008, "replaced: the session was gone on with from another connection")
        self.socket = socket
        if not self.numbered:  # what was said meanwhile is lost
            self.inputs.sound_s = max(self.inputs.sound_s, self.inputs.now_s if self.inputs.sound_s else 0.0)

    def detach(self, socket: Socket) -> None:
        if self.socket is socket:
            self.socket, self.left_at_s = None, time.monotonic()

    def _wake(self) -> None:
        if self.socket is not None:
            self.socket.wake()

    def describe(self) -> p.SessionConfig:
        settings, sound = self.gateway.settings, self.inputs
        speech = self.hearing.speech
        audio = {"input": {"format": {"type": "audio/pcm", "rate": sound.sound_hz}, "turn_detection": self.turn_detection,
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
        if 0 < number <= self.done_seq and not dispatch.is_media(event):
            return  # it was done by the process before this one
        try:
            waiting = Waiting(event, dispatch.place(self, event), size, dispatch.flushes(self, event))
            self.gateway.metrics.drops.labels("shed").inc(self._inbox.put(waiting))
            if waiting.flush:
                self.inputs.flush()
        except Fault as fault:
            if fault.code == "clock_back":
                kind = "audio" if isinstance(event, p.AudioAppend) else "video"
                self._inbox.shed[getattr(event, "stream", None) or self.inputs.first_of(kind) or ""] += 1
                self.gateway.metrics.drops.labels("late").inc()
            self.fail(fault, event.event_id)
            return
        if number:
            self._note(waiting)

    def _note(self, waiting: Waiting) -> None:
        """Its number is safe once it was done, or what it brought is in the log."""
        end_s = max((piece.end_s for piece in waiting.pieces), default=0.0)
        self._pending[waiting.number] = end_s if waiting.is_media else float("inf")
        if any(piece.sound for piece in waiting.pieces):
            self._sound_at.append((waiting.number, self.inputs.sound_s))
        if len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)

    # -- working on it ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            batch = await self._inbox.next()
            try:
                if batch[0].is_media:
                    await self._keep_pace()
                    await self._take([(w, piece) for w in batch for piece in w.pieces])
                else:
                    await dispatch.handle(self, batch[0])
            except Exception as error:
                self.fail(as_answer(error), batch[0].event.event_id)
            if not batch[0].is_media:
                self._finished(batch[0].number)

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
            self._pending.pop(waiting.number, None)
            self.fail(fault, waiting.event.event_id)
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
                self._tasks.append(asyncio.create_task(self._watch(), name=f"watch {self.id}"))
        return self._session

    async def _open(self) -> None:
        session = await self.gateway.pushes.run(partial(
            self.gateway.host.open, self.id, streams=self.inputs.streams, live=True,
            idle_timeout_s=self.gateway.settings.idle_timeout_s))
        if self.numbered:  # what is missing will be sent again
            await self.gateway.pushes.run(session.be_patient)
        self._session = session

    @property
    def opened(self) -> bool:
        return self._session is not None or self._opening.locked()

    # -- news ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tell of windows and of what rules see in them."""
        while True:
            try:
                seen = await self.gateway.waits.run(partial(self._session.seen, self.told, wait_s=NEWS_WAIT_S))
            except SessionError:  # closed
                return
            except RuntimeFault:  # a part was restarted
                await asyncio.sleep(RETRY_S)
                continue
            except Exception as error:
                self.fail(as_answer(error))
                await asyncio.sleep(NEWS_WAIT_S)
                continue
            for window in seen:
                self._tell(window)
            if not seen:
                await asyncio.sleep(0)

    def _tell(self, seen: Seen) -> None:
        dropped = Counter(seen.dropped)
        dropped.update(self._inbox.shed)
        self._inbox.shed.clear()
        says = tuple(p.Hit(start_s=seen.start_s, end_s=seen.end_s, **asdict(said)) for said in seen.says)
        self.told = seen.window
        self.inputs.out_s = self.end_s
        self.outbox.put(p.WindowSeen, index=seen.window, start_s=seen.start_s, end_s=seen.end_s, streams=seen.streams,
                        dropped=dict(dropped), gap=seen.gap, says=says)
        for event in seen.began:
            self.tell_rule(event)
        self.gateway.metrics.windows.inc()
        self.save()
        self.look_again()

    def tell_rule(self, event: Any) -> None:
        """What a rule saw begin, once."""
        text, told_s = self._rules.get(event.rule, ("", -1.0))
        if event.t_s <= told_s:
            return
        self._rules[event.rule] = (text, event.t_s)
        evidence = tuple(p.Span(**asdict(span)) for span in event.evidence)
        self.outbox.put(p.RuleEvent, rule=event.rule, text=text, t_s=event.t_s, confidence=event.confidence,
                        evidence=evidence)

    def tell_rules(self, rules: Any) -> None:
        """All rules as they are."""
        self._rules = {rule.name: (rule.text, self._rules.get(rule.name, ("", -1.0))[1]) for rule in rules}
        self.outbox.put(p.Rules, rules=tuple(
            p.Rule(name=r.name, text=r.text, paused=r.paused, active=r.happening) for r in rules))

    def tell_limits(self) -> None:
        if (bucket := self.bucket) is None:
            return
        self.outbox.put(p.RateLimitsUpdated, rate_limits=(p.RateLimit(
            name="requests", limit=round(bucket.size), remaining=max(0, int(bucket.left)),
            reset_seconds=round((bucket.size - bucket.left) / bucket.rate, 3)),))

    def add_item(self, item: str) -> str | None:
        """Note an item; the one before it."""
        before, self.last_item = self.last_item, item
        return before

    def fail(self, fault: Fault, event_id: str | None = None) -> None:
        self.gateway.metrics.refused.labels(fault.code).inc()
        self.outbox.put(p.ErrorEvent, error=as_fault(fault, event_id))

    # -- what is safe -------------------------------------------------------------------------------------------

    def _finished(self, number: int) -> None:
        """An event other than media was done."""
        self.done_seq = max(self.done_seq, number)
        self._pending.pop(number, None)
        self.save()

    def save(self) -> None:
        """Note what a new process needs: written before any of it can be seen by the client."""
        if self.ended:
            return
        while self._pending:
            number, end_s = next(iter(self._pending.items()))
            if end_s > self.end_s + 1e-6:
                break
            self._pending.popitem(last=False)
        self.safe = next(iter(self._pending)) - 1 if self._pending else self.client_seq
        while self._sound_at and self._sound_at[0][0] <= self.safe:
            self._sound_s = self._sound_at.popleft()[1]
        running = self.answers.running
        self.outbox.save({
            "client": self.client, "token": dispatch.digest(self.token), "bundle": self.gateway.host.name,
            "streams": self.inputs.streams if self.inputs.declared else None, "opened": self._session is not None,
            "instructions": self.instructions, "turn_detection": self.turn_detection, "sound_hz": self.inputs.sound_hz,
            "question": self.question, "last_item": self.last_item, "told": self.told, "numbered": self.numbered,
            "safe": self.safe, "done": self.done_seq, "sound_s": self._sound_s if self.numbered else self.inputs.sound_s,
            "newest_s": self.inputs.newest_s, "at": time.time(), "rules": self._rules,
            "running": None if running is None else asdict(running)})
        self._wake()

    async def restore(self, noted: dict[str, Any]) -> None:
        """Go on from a checkpoint in a new process. Raises LogError where the session's log cannot be used."""
        self.instructions, self.turn_detection = noted["instructions"], noted["turn_detection"]
        self.question, self.last_item, self.told = noted["question"], noted["last_item"], noted["told"]
        self.numbered, self.done_seq = noted["numbered"], noted["done"]
        self.safe = self.client_seq = noted["safe"]
        self._rules = {name: tuple(rule) for name, rule in noted["rules"].items()}
        if noted["streams"]:
            self.inputs.use(noted["streams"])
        self.inputs.sound_hz, self.inputs.sound_s = noted["sound_hz"], noted["sound_s"]
        self._sound_s = noted["sound_s"]
        if noted["opened"]:
            await self._open()
            windows, began = await self.gateway.pushes.run(lambda: (self._session.windows, self._session.events()))
            self.inputs.resume(windows * self.inputs.window_s, noted["newest_s"], time.time() - noted["at"])
            for event in began:
                self.tell_rule(event)
        if noted["running"]:
            self.answers.resume(noted["running"])

    # -- ending -------------------------------------------------------------------------------------------------

    async def leave(self, code: int, reason: str) -> None:
        """This process ends, the session does not: what is under way is gone on with by the next one."""
        if not self.numbered and self._session is not None:  # nobody will send it again
            await self.gateway.asks.run(self._session.flush)
            for window in await self.gateway.asks.run(self._session.seen, self.told):
                self._tell(window)
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
