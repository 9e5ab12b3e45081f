"""The media of a live session: where in its time each piece belongs, and what it holds, as Packets.

`place` is for the event loop and looks only at an event's keys; `packets` unpacks, decodes and resamples, in a thread.
Media time goes on with the wall clock between pieces, so that what has no time of its own is put where it was sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.gateway.faults import Fault
from actors.gateway.pictures import IMAGES, LEVELS, levels, picture, samples, unpack, unpack_url
from actors.gateway.streams import SensorInput, SoundInput, behind
from anymodal.config import BundleSpec
from anymodal.errors import nearest
from anymodal.media.spec import AUDIO, VIDEO, StreamSpec, stream_specs
from anymodal.protocol import RATE_HZ, InputAppend, Wants
from anymodal.types import Packet

AHEAD_S = 30.0  # how far a piece may be ahead of the session's time: a clock that jumps is not followed
FRAME_PIXELS = 4096 * 2304  # of one frame
AS_PICTURES = ("depth", "thermal")  # what a stream that was declared as video may hold as well
AT_ONCE_S = 0.5  # by so much, media came faster than they last
STREAMING_S = 2.0  # since the last piece that had a time: then more is on its way


@dataclass(frozen=True, slots=True)
class Sound:
    """What input_audio_buffer holds: mono, `encoding` pcm16, pcmu or pcma."""

    encoding: str = "pcm16"
    rate_hz: int = RATE_HZ

    @property
    def sample_bytes(self) -> int:
        return 2 if self.encoding == "pcm16" else 1

    @property
    def format(self) -> dict[str, Any]:
        """As OpenAI's `audio.input.format`."""
        if self.encoding == "pcm16":
            return {"type": "audio/pcm", "rate": self.rate_hz}
        return {"type": f"audio/{self.encoding}"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a stream. `end_s`: the window that holds it is out when it has ended; `sound`: of input_audio_buffer."""

    stream: str
    pts_s: float
    end_s: float
    encoding: str | None
    data: str  # base64, or a data URL where there is no encoding
    rate_hz: float | None = None
    shape: tuple[int, ...] | None = None
    sound: bool = False


class Inputs:
    """`streams`: name -> modality, once they are fixed by `use`."""

    def __init__(self, spec: BundleSpec, most_pixels: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._known, self._clock = stream_specs(spec.modalities), clock
        self._most_pixels = min(most_pixels, FRAME_PIXELS)
        self.window_s = spec.window_s
        self.streams = {name: name for name, modality in spec.modalities.items() if modality.usual}
        self.declared = False
        self.sound_s, self.sound = 0.0, Sound()  # of input_audio_buffer: where it goes on, and what comes
        self.out_s = 0.0  # windows up to here are out
        self.from_s = 0.0  # what is before is in the log already: it was sent again
        self._newest_s, self._newest_at_s = 0.0, clock()
        self._newest: dict[str, float] = {}
        self._still_s = 0.0  # where the next picture without a time may be
        self._timed = False  # does the client say when things are?
        self._timed_at_s, self._first_at_s = -STREAMING_S, clock()
        self._inputs: dict[str, SoundInput | SensorInput] = {}

    @property
    def wants(self) -> dict[str, Wants]:
        return {name: Wants(rate_hz=s.rate_hz, size_px=s.size_px, axes=s.axes or None, pixels=s.pixels, level=s.level)
                for name, s in self._known.items()}

    def use(self, streams: Mapping[str, str]) -> None:
        """Raises Fault for a modality that the bundle does not know."""
        if not streams or len(streams) > 16 or any(not 0 < len(name) <= 64 for name in streams):
            raise Fault(400, "invalid_streams", f"{len(streams)} streams were named", param="session.anymodal.streams",
                        fix="name 1 to 16 of them, with names of 1 to 64 characters")
        for name, modality in streams.items():
            if modality not in self._known:
                fix = nearest(modality, self._known)
                fix += ', or declare it as "video" to show it as pictures' if modality in AS_PICTURES else ""
                raise Fault(400, "unknown_modality", f"stream {name!r:.70} is {modality!r:.40}, which this model does not "
                            "know", param="session.anymodal.streams", fix=fix)
        self.streams, self.declared = dict(streams), True

    def first_of(self, modality: str) -> str | None:
        return next((name for name, kind in self.streams.items() if kind == modality), None)

    # -- where it belongs ---------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Media time, as it goes on with the wall clock."""
        return self._newest_s + self._clock() - self._newest_at_s

    @property
    def newest_s(self) -> float:
        return self._newest_s

    @property
    def settled(self) -> bool:
        """Is what has come all there is for now? It is not while a camera or a microphone goes on; it is where sound and
        pictures without times came faster than they last."""
        at_once = not self._timed and self._newest_s > self._clock() - self._first_at_s + AT_ONCE_S
        return at_once or self._clock() - self._timed_at_s >= STREAMING_S

    @property
    def whole_s(self) -> float:
        """Up to where all streams that are coming have come."""
        coming = [t_s for t_s in self._newest.values() if t_s > self._newest_s - STREAMING_S]
        return min(coming, default=0.0)

    def resume(self, seen_s: float, newest_s: float, away_s: float) -> None:
        """Go on after the end of a process: `seen_s` is in the log, and so much time has passed since `newest_s`."""
        self.from_s = self.out_s = self._still_s = seen_s
        self._newest_s, self._newest_at_s = max(newest_s, seen_s), self._clock() - max(0.0, away_s)

    def place(self, event: InputAppend) -> Piece:
        """Raises Fault for a stream that there is not, or a time far ahead."""
        self._timed = True
        spec = self._spec(event.stream)
        is_picture = spec.is_picture
        said = event.modality or spec.modality
        if said != spec.modality and not (spec.pixels == "rgb8" and said in AS_PICTURES):
            raise Fault(400, "wrong_modality", f"stream {event.stream!r} is {spec.modality}, the event says {said!r}",
                        param="modality", fix="leave modality out, or name the right stream")
        taken = LEVELS if spec.pixels == "gray16" else (*IMAGES, "float32") if said in AS_PICTURES else IMAGES
        if is_picture and event.encoding not in taken:
            raise Fault(400, "invalid_encoding", f"encoding is {event.encoding}, stream {event.stream!r} holds frames",
                        param="encoding", fix=f"send {', '.join(taken)}")
        length_s = 1 / spec.rate_hz if is_picture else self._length_s(event, spec)
        return self._placed(Piece(event.stream, event.pts_s, event.pts_s + length_s, event.encoding, event.data,
                                  event.rate_hz, event.shape))

    def place_sound(self, audio: str, pts_s: float | None = None) -> Piece:
        """Sound of input_audio_buffer, behind what came before unless it has a time of its own."""
        length_s = _bytes(audio) // self.sound.sample_bytes / self.sound.rate_hz
        if self.from_s <= self.sound_s < self.out_s:  # there was none for a while
            self.sound_s = self.out_s
        start_s = self.sound_s if pts_s is None else pts_s
        name = self.first_of(AUDIO) or ""
        self.sound_s = start_s + length_s
        return self._placed(Piece(name, start_s, start_s + length_s, self.sound.encoding, audio, self.sound.rate_hz,
                                  sound=True))

    def place_image(self, image_url: str, pts_s: float | None, stream: str | None) -> Piece:
        """A picture of a message. Without a time it is shown from now on, and not in place of the one before."""
        name = stream or self.first_of(VIDEO)
        if name is None or self._spec(name).pixels != "rgb8":
            raise Fault(400, "unknown_stream", "the session has no stream of video", param="item.content",
                        fix="declare one in session.anymodal.streams")
        step_s = 1 / self._spec(name).rate_hz
        if pts_s is not None:
            self._timed = True
            return self._placed(Piece(name, pts_s, pts_s + step_s, None, image_url))
        at_s = max(self.now_s, self._still_s, self.out_s)
        self._still_s = at_s + step_s
        timed_at_s = self._timed_at_s
        piece = self._placed(Piece(name, at_s, at_s + step_s, None, image_url))
        self._timed_at_s = timed_at_s
        return piece

    def flush(self) -> None:
        """What comes next and has no time of its own belongs to a new window."""
        end_s = math.ceil(self._newest_s / self.window_s - 1e-6) * self.window_s
        self._still_s, self.sound_s = max(self._still_s, end_s), max(self.sound_s, end_s) if self.sound_s else 0.0
        if end_s > self._newest_s:
            self._newest_s, self._newest_at_s = end_s, self._clock()

    def _placed(self, piece: Piece) -> Piece:
        if self.from_s < piece.end_s <= self.out_s:
            raise Fault(400, "clock_back", f"pts_s is {piece.pts_s:g} s: windows up to {self.out_s:g} s are out",
                        param="pts_s", fix="send pieces roughly in order of time, each once")
        if piece.pts_s > self.now_s + AHEAD_S:
            raise Fault(400, "clock_ahead", f"pts_s is {piece.pts_s:g} s, the session is at {self.now_s:.2f} s",
                        param="pts_s", fix=f"say times of the session, which began at 0, at most {AHEAD_S:g} s ahead")
        if piece.end_s > piece.pts_s + AHEAD_S:
            raise Fault(400, "piece_too_long", f"the event has {piece.end_s - piece.pts_s:.1f} s of samples", param="data",
                        fix=f"send at most {AHEAD_S:g} s at once, and the right rate_hz")
        self._timed_at_s = self._clock()
        if piece.end_s > self._newest_s:
            self._newest_s, self._newest_at_s = piece.end_s, self._clock()
        if piece.stream:
            self._newest[piece.stream] = max(piece.end_s, self._newest.get(piece.stream, 0.0))
        return piece

    def _length_s(self, event: InputAppend, spec: StreamSpec) -> float:
        size = (2 if event.encoding == "pcm16" else 4) * (len(spec.axes) or 1)
        return _bytes(event.data) / size / (event.rate_hz or spec.rate_hz)

    def _spec(self, stream: str) -> StreamSpec:
        if stream not in self.streams:
            fix = nearest(stream, self.streams)
            fix += "" if self.declared else ", or declare it before in session.update: session.anymodal.streams"
            raise Fault(400, "unknown_stream", f"there is no stream {stream!r:.70}", param="stream", fix=fix)
        return self._known[self.streams[stream]]

    # -- what it holds ------------------------------------------------------------------------------------------

    def unpacked(self, piece: Piece) -> np.ndarray:
        """A frame of the bundle's size, uint8 (H, W, 3) or uint16 (H, W, 1), or samples float32 (T,) or (T, C). In a
        thread. Raises Fault."""
        data = unpack_url(piece.data) if piece.encoding is None else unpack(piece.data)
        spec = self._known[self.streams[piece.stream]] if piece.stream else None
        if spec is not None and spec.pixels == "gray16":
            return levels(data, spec, encoding=piece.encoding, shape=piece.shape, most_pixels=self._most_pixels)
        if spec is not None and spec.is_picture:
            return picture(data, spec.size_px, encoding=piece.encoding, shape=piece.shape, most_pixels=self._most_pixels)
        return samples(data, piece.encoding or "", piece.shape, spec.axes if spec else ())

    def packets(self, piece: Piece, values: np.ndarray) -> list[Packet]:
        """What `unpacked` gave, on the bundle's grid. In a thread, one at a time. Raises Fault."""
        if not piece.stream:
            return []
        spec = self._known[self.streams[piece.stream]]
        if spec.is_picture:
            found = [Packet(piece.stream, spec.modality, piece.pts_s, values, spec.rate_hz)]
        else:
            if piece.stream not in self._inputs:
                kind = SensorInput if spec.axes else SoundInput
                self._inputs[piece.stream] = kind(piece.stream, spec)
            found = self._inputs[piece.stream].push(values, piece.pts_s, piece.rate_hz)
        if piece.end_s - 1.0 > self.from_s:
            return found
        return [kept for packet in found if (kept := behind(packet, self.from_s)) is not None]


def _bytes(text: str) -> int:
    """How many bytes base64 stands for."""
    return max(0, len(text) * 3 // 4 - text[-2:].count("="))
