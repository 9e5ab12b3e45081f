"""Questions that are spoken: what comes into input_audio_buffer is listened to, cut into utterances, and transcribed.

A component for it, `gateway.speech`, has a `name`, `listener()` with `push(samples) -> [SpeechStarted | SpeechStopped]`,
and `transcribe(samples, rate_hz) -> str`; samples are float32, mono, at HEARD_HZ. Without one the sound is that of a stream
and no more.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.gateway.answers import Running
from actors.gateway.faults import Fault, as_answer
from actors.gateway.inputs import Sound
from actors.gateway.pictures import samples, unpack
from actors.gateway.streams import SoundInput
from anymodal import protocol as p
from anymodal.media.spec import AUDIO, StreamSpec

if TYPE_CHECKING:
    from actors.gateway.live import Live

HEARD_HZ = 16000
KEPT_S = 60.0  # of sound that was not committed


class Hearing:
    """The ears of one session. `hear` is for one thread at a time, the rest for the event loop."""

    def __init__(self, live: Live, speech: Any) -> None:
        self._live, self.speech = live, speech
        self._sound = SoundInput("heard", StreamSpec(AUDIO, HEARD_HZ))
        self._listener: Any = None
        self._kept: deque[np.ndarray] = deque()
        self._kept_s = 0.0
        self._tasks: set[asyncio.Task] = set()
        self._speaking = ""  # the item that is being said
        self.last: asyncio.Task[str] | None = None  # the last utterance's transcription

    # -- in a thread --------------------------------------------------------------------------------------------

    def hear(self, sound: np.ndarray, pts_s: float, rate_hz: float) -> list[Any]:
        """float32 (T,) -> where speech started and stopped."""
        found: list[Any] = []
        for packet in self._sound.push(sound, pts_s, rate_hz):
            self._kept.append(packet.data)
            self._kept_s += len(packet.data) / HEARD_HZ
            while self._kept_s > KEPT_S:
                self._kept_s -= len(self._kept.popleft()) / HEARD_HZ
            turns = self._live.turn_detection
            if self.speech is not None and turns is not None:
                self._listener = self._listener or self.speech.listener(HEARD_HZ, **_options(turns))
                found += self._listener.push(packet.data)
        return found

    def reset(self) -> None:
        """The way to listen has changed."""
        self._listener = None

    def forget(self) -> None:
        """What was heard and not committed."""
        self._kept.clear()
        self._kept_s = 0.0

    def _taken(self) -> np.ndarray:
        sound = np.concatenate(list(self._kept)) if self._kept else np.zeros(0, np.float32)
        self.forget()
        return sound

    # -- utterances ---------------------------------------------------------------------------------------------

    async def heard(self, event: Any) -> None:
        """What the listener says. Speech ends an answer, unless the client wants it otherwise."""
        put, turns = self._live.outbox.put, self._live.turn_detection or {}
        if hasattr(event, "samples"):
            item = self._speaking or new_item()
            put(p.SpeechStopped, audio_end_ms=round(event.t_s * 1000), item_id=item)
            self._speaking = ""
            self.forget()
            self._utter(item, event.samples, answer=turns.get("create_response", True))
            return
        self._speaking = new_item()
        put(p.SpeechStarted, audio_start_ms=round(event.t_s * 1000), item_id=self._speaking)
        if turns.get("interrupt_response", True):
            await self._live.answers.interrupt("speech")

    async def commit(self) -> None:
        """What was said since the last time is a question. Raises Fault where nothing was."""
        sound = self._taken()
        if not len(sound):
            raise Fault(400, "input_audio_buffer_commit_empty", "there is no sound to commit",
                        fix="append some before")
        turns = self._live.turn_detection or {}
        self._utter(self._speaking or new_item(), sound, answer=bool(turns) and turns.get("create_response", True))
        self._speaking = ""

    async def say(self, item: str, audio: str, kind: Sound) -> None:
        """A message that is a sound, base64 of what input_audio_buffer holds."""
        def heard() -> np.ndarray:
            found = SoundInput("said", StreamSpec(AUDIO, HEARD_HZ)).push(
                samples(unpack(audio, param="item.content"), kind.encoding, None, ()), 0.0, kind.rate_hz)
            return np.concatenate([packet.data for packet in found]) if found else np.zeros(0, np.float32)

        self._add(item, await self._live.gateway.pushes.run(heard), answer=False)

    def _utter(self, item: str, sound: np.ndarray, *, answer: bool) -> None:
        self._live.outbox.put(p.AudioCommitted, item_id=item, previous_item_id=self._live.conversation.last_item)
        self._add(item, sound, answer=answer)

    def _add(self, item: str, sound: np.ndarray, *, answer: bool) -> None:
        talk = self._live.conversation
        talk.add(p.Item(id=item, role="user", content=(p.InputAudio(type="input_audio"),)))
        talk.ask("", item)
        self.last = asyncio.create_task(self._transcribe(item, sound, answer))
        self._tasks.add(self.last)
        self.last.add_done_callback(self._tasks.discard)

    async def _transcribe(self, item: str, sound: np.ndarray, answer: bool) -> str:
        """What was said; "" where that cannot be told: the client knows then."""
        put = self._live.outbox.put
        try:
            if self.speech is None:
                raise Fault(501, "no_speech", "this server has no component that hears questions",
                            fix="type the question, or start the server with one")
            text = (await self._live.gateway.asks.run(self.speech.transcribe, sound, HEARD_HZ)).strip()
        except Exception as error:
            fault = as_answer(error)
            put(p.TranscriptionFailed, item_id=item, error=as_fault(fault))
            return ""
        put(p.TranscriptionCompleted, item_id=item, transcript=text,
            usage={"type": "duration", "seconds": round(len(sound) / HEARD_HZ, 3)})
        talk = self._live.conversation
        talk.heard(item, text)
        if talk.question_item == item:  # it was not deleted, nor another asked meanwhile
            talk.ask(text, item)
        if answer and text:
            try:
                await self._live.answers.interrupt("speech")
                self._live.answers.begin(Running(text, instructions=self._live.read_instructions))
            except Fault as fault:
                self._live.fail(fault)
        self._live.save()
        return text

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _options(turns: dict[str, Any]) -> dict[str, float]:
    """What turn_detection says of how to listen."""
    found = {"threshold": turns.get("threshold"), "silence_s": _seconds(turns.get("silence_duration_ms")),
             "padding_s": _seconds(turns.get("prefix_padding_ms"))}
    return {name: value for name, value in found.items() if value is not None}


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def new_item() -> str:
    return f"item_{uuid.uuid4().hex[:20]}"


def as_fault(fault: Fault, event_id: str | None = None) -> p.Fault:
    return p.Fault(type=fault.kind, code=fault.code, message=str(fault), param=fault.param, event_id=event_id)
