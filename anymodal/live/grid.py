"""Frames and sound of any rate, in the session's time -> what the bundle wants, on its grid.

A video's grid time shows the last frame at or before it, as in a file; a frame is held for `HOLD_S` at most, so that what
was lost does not seem to have stood still. Sound is placed by its time and then by counting; it is placed anew where the
two have drifted apart by `RESYNC_S`, and what was said of a moment already is not said again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from anymodal.media.audio import ToMono, mono_frame, pull
from anymodal.media.container import av
from anymodal.media.spec import AUDIO, VIDEO, StreamSpec, exact
from anymodal.media.video import new_scaler, to_rgb
from anymodal.types import Packet

HOLD_S = 2.0
RESYNC_S = 0.05
PACKET_S = 0.1  # length of a packet of sound
EPSILON_S = 1e-4  # times are floats: a frame this close to a grid time is on it


class VideoGrid:
    """Decoded frames in, a Packet for each grid time out. `stream`: its name in the session."""

    def __init__(self, stream: str, spec: StreamSpec, start_s: float = 0.0) -> None:
        self.stream, self.spec = stream, spec
        self._rate_hz = exact(spec.rate_hz)
        self._next = self._ceil(start_s)
        self._held: tuple[Any, float] | None = None
        self._scaler = new_scaler()

    def put(self, frame: Any, at_s: float) -> Iterator[Packet]:
        """What is known of the grid now that the next frame has come."""
        held, self._held = self._held, (frame, at_s)
        if held is None or at_s < held[1]:
            return
        first = max(self._next, self._ceil(held[1]))
        stop = min(self._ceil(at_s), self._ceil(held[1] + HOLD_S))
        if first < stop:
            image = to_rgb(self._scaler, held[0], self.spec.size_px)
            self._next = stop
            for j in range(first, stop):
                yield Packet(self.stream, VIDEO, float(j / self._rate_hz), image, self.spec.rate_hz)

    def shift(self, seconds: float) -> None:
        """What comes next is that much earlier than was thought."""
        self._next -= round(seconds * self._rate_hz)
        if self._held is not None:
            self._held = (self._held[0], self._held[1] - seconds)

    def end(self) -> Iterator[Packet]:
        """The connection has ended: what was on show is no longer."""
        self._held = None
        return iter(())

    def _ceil(self, at_s: float) -> int:
        return math.ceil((Fraction(at_s) - Fraction(EPSILON_S)) * self._rate_hz)


class AudioGrid:
    """Decoded sound in, Packets of mono float32 at the bundle's rate out."""

    def __init__(self, stream: str, spec: StreamSpec, start_s: float = 0.0) -> None:
        self.stream, self.spec = stream, spec
        self._rate_hz = int(spec.rate_hz)
        self._next = math.ceil(start_s * self._rate_hz)  # the first sample that was not given yet
        self._size = max(1, int(self._rate_hz * PACKET_S))
        self._waiting: list[np.ndarray] = []  # they end before `_next`
        self._resampler, self._source_hz, self._expected_s, self._at = None, 0, 0.0, 0
        self._to_mono = ToMono()

    def put(self, frame: Any, at_s: float) -> Iterator[Packet]:
        source_hz = frame.sample_rate
        if self._resampler is None or source_hz != self._source_hz or abs(at_s - self._expected_s) > RESYNC_S:
            yield from self.end()
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
            self._source_hz, self._expected_s, self._at = source_hz, at_s, round(at_s * self._rate_hz)
        samples = self._to_mono(frame)
        self._expected_s += len(samples) / source_hz
        out = samples
        if source_hz != self._rate_hz and len(samples):
            out = pull(self._resampler, mono_frame(samples, source_hz))
        yield from self._give(out)

    def end(self) -> Iterator[Packet]:
        """What the resampler and the last, short packet hold."""
        if self._resampler is not None:
            if self._source_hz != self._rate_hz:
                yield from self._give(pull(self._resampler, None))
            self._resampler, self._to_mono = None, ToMono()
        yield from self._flush()

    def shift(self, seconds: float) -> None:
        moved = round(seconds * self._rate_hz)
        self._next -= moved
        self._at -= moved
        self._expected_s -= seconds

    def _give(self, samples: np.ndarray) -> Iterator[Packet]:
        """Samples from index `_at` on, less what was given before."""
        skip = max(0, min(self._next - self._at, len(samples)))
        self._at += len(samples)
        fresh = samples[skip:]
        if not len(fresh):
            return
        if self._at - len(fresh) != self._next:  # a hole: the windower fills it
            yield from self._flush()
        self._next = self._at
        self._waiting.append(fresh)
        if sum(map(len, self._waiting)) >= self._size:
            yield from self._flush()

    def _flush(self) -> Iterator[Packet]:
        if self._waiting:
            data = np.concatenate(self._waiting).astype(np.float32, copy=False)
            self._waiting = []
            yield Packet(self.stream, AUDIO, (self._next - len(data)) / self._rate_hz, data, self.spec.rate_hz)


def new_grid(stream: str, spec: StreamSpec, start_s: float) -> VideoGrid | AudioGrid:
    return (VideoGrid if spec.modality == VIDEO else AudioGrid)(stream, spec, start_s)
