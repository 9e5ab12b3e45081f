"""The change gate: which streams of a window are as they were, so that their earlier tokens can stand for them.

A stream repeats an earlier window if nothing changes within this window, nothing did within that one, and the two are
alike. "Alike" leaves room for a codec's noise and for slow changes of the light, and is always judged against the window
that was encoded, so that small steps do not add up unseen.

| signal | compared | alike |
|---|---|---|
| colour frames | means of grid x grid cells of each, the closing one too | no cell changes unlike their median |
| 16-bit frames | the same | no cell changes by more than `gray_share` of the range of all cells |
| audio | levels of eight bands in eight parts of the window | none differs by more than `audio_db` above the floor |
| sensors | mean and deviation of each axis in four parts | means within `sensor_sigmas`, deviations within a factor |

Windows whose number `refresh` divides are always encoded. So decisions depend on nothing before such a window: a source
that goes on from `Gate.begins(k)` decides about window k as if it had never stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from anymodal.config import GateSpec
from anymodal.types import Signal, Tokens, Window

BANDS, PARTS, SENSOR_PARTS = 8, 8, 4
CELL_PX = 6  # at least: fewer pixels do not average out a codec's noise
MOST_LIGHT = 3.0  # times video_levels: how far the light of a whole picture may have drifted
COLOUR, LEVELS, AUDIO, SENSOR = "colour", "levels", "audio", "sensor"
MOST_STREAMS = 4096  # remembered; of more, those that came longest ago are encoded again


@dataclass(slots=True)
class Encoded:
    """What a stream last had encoded. `still`: nothing changed within it. `tokens` are filled in by perception."""

    index: int
    shape: tuple
    sketch: np.ndarray
    still: bool
    tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Gated:
    """A window after the gate. `window`: with only the streams to encode, their unchanged frames made equal.
    `encoded`: by stream, where the tokens come from; `repeats`: stream -> the window it repeats."""

    window: Window
    encoded: Mapping[str, Encoded]
    repeats: Mapping[str, int] = field(default_factory=dict)


class Gate:
    """Remembers, for each stream of each session, the window that was last encoded."""

    def __init__(self, spec: GateSpec) -> None:
        self.spec = spec
        self._last: OrderedDict[tuple[str, str], Encoded] = OrderedDict()

    def begins(self, index: int) -> int:
        """The window from which on windows must be given for window `index` to be decided as in an unbroken stream."""
        return index - index % self.spec.refresh

    def push(self, session: str, window: Window) -> Gated:
        """Decide about the next window of a session. Windows that come again, or out of order, are encoded."""
        encode: dict[str, Signal] = {}
        found: dict[str, Encoded] = {}
        repeats: dict[str, int] = {}
        for stream, signal in window.signals.items():
            key = (session, stream)
            sketch = _sketch(signal, self.spec)
            now = Encoded(window.index, signal.data.shape, sketch, self._still(_kind(signal), sketch))
            last = self._last.get(key)
            if last is not None and self._repeats(_kind(signal), last, now):
                found[stream], repeats[stream] = last, last.index
            else:
                self._last[key] = found[stream] = now
                encode[stream] = self._settled(signal, sketch)
            self._last.move_to_end(key)
        while len(self._last) > MOST_STREAMS:
            self._last.popitem(last=False)
        return Gated(replace(window, signals=encode), found, repeats)

    def forget(self, session: str) -> None:
        """The session ended, or its tokens could not be made."""
        for key in [key for key in self._last if key[0] == session]:
            del self._last[key]

    def _repeats(self, kind: str, last: Encoded, now: Encoded) -> bool:
        fresh = self.begins(now.index) <= last.index < now.index
        return (fresh and last.still and now.still and last.shape == now.shape
                and _alike(kind, last.sketch[:1], now.sketch, self.spec))

    def _still(self, kind: str, sketch: np.ndarray) -> bool:
        return _alike(kind, sketch[:1], sketch, self.spec)

    def _settled(self, signal: Signal, sketch: np.ndarray) -> Signal:
        """Pictures in which every frame that is like the one before is a copy of it, so that it is encoded once."""
        if not signal.is_picture:
            return signal
        kind = _kind(signal)
        frames = list(signal.data) + ([] if signal.closing is None else [signal.closing])
        like = 0
        for i in range(1, len(frames)):
            if _alike(kind, sketch[like : like + 1], sketch[i : i + 1], self.spec):
                frames[i] = frames[like]
            else:
                like = i
        count = len(signal.data)
        return replace(signal, data=np.stack(frames[:count]), closing=frames[count] if count < len(frames) else None)


# --- sketches: what of a signal is compared --------------------------------------------------------------------------

def _kind(signal: Signal) -> str:
    """What a signal is, by its data: what a sense is called tells nothing of how it may be compared."""
    if signal.is_picture:
        return COLOUR if signal.data.dtype == np.uint8 else LEVELS
    return AUDIO if signal.data.ndim == 1 else SENSOR


def _sketch(signal: Signal, spec: GateSpec) -> np.ndarray:
    """(parts, ...) float32: one row for each frame, or for each part of the window."""
    if signal.is_picture:
        frames = signal.data if signal.closing is None else np.concatenate([signal.data, signal.closing[None]])
        return _cells(frames, spec.grid)
    if _kind(signal) == AUDIO:
        return _band_levels_db(signal.data, spec.audio_floor_db)
    return _moments(signal.data)


def _cells(frames: np.ndarray, grid: int) -> np.ndarray:
    """Frames (T, H, W, C) -> mean of each cell, (T, grid, grid, C)."""
    count, height, width, channels = frames.shape
    grid = max(1, min(grid, height // CELL_PX, width // CELL_PX))
    tall, wide = height // grid, width // grid
    total = np.uint32 if frames.dtype == np.uint8 else np.uint64
    cut = frames[:, : tall * grid, : wide * grid].reshape(count, grid, tall, grid, wide * channels)
    rows = cut.sum(2, dtype=total).reshape(count, grid, grid, wide, channels)
    return rows.sum(3, dtype=total).astype(np.float32) / (tall * wide)


def _band_levels_db(samples: np.ndarray, floor_db: float) -> np.ndarray:
    """float32 (N,) -> level of each band in each part, (PARTS, BANDS), no lower than the floor."""
    length = len(samples) // PARTS
    if length < 4 * BANDS:
        return np.full((1, BANDS), floor_db, np.float32)
    power = np.abs(np.fft.rfft(samples[: PARTS * length].reshape(PARTS, length))) ** 2 * 2 / length**2
    edges = np.unique(np.geomspace(2, power.shape[1], BANDS + 1).astype(int))
    levels = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return np.maximum(10 * np.log10(levels + 1e-12), floor_db).astype(np.float32)


def _moments(rows: np.ndarray) -> np.ndarray:
    """float32 (N, C) -> mean and deviation of each axis in each part, (SENSOR_PARTS, 2, C)."""
    parts = np.array_split(rows.astype(np.float64), min(SENSOR_PARTS, len(rows)) or 1)
    return np.stack([np.stack([p.mean(0), p.std(0)]) for p in parts])


def _alike(kind: str, one: np.ndarray, others: np.ndarray, spec: GateSpec) -> bool:
    """Whether each row of `others` is like the one row of `one`."""
    if one.shape[1:] != others.shape[1:] or not (np.isfinite(one).all() and np.isfinite(others).all()):
        return False
    if kind == LEVELS:
        room = max(spec.gray_share * float(np.ptp(one)), 1.0)  # a level may be 1 mm or 10 mK: it has no size of its own
        return bool((np.abs(others - one) <= room).all())
    if kind == COLOUR:
        difference = others - one
        light = np.median(difference, axis=(1, 2), keepdims=True)
        return bool((np.abs(difference - light) <= spec.video_levels).all()
                    and (np.abs(light) <= MOST_LIGHT * spec.video_levels).all())
    if kind == AUDIO:
        return bool((np.abs(others - one) <= spec.audio_db).all())
    (mean,), (noise,) = one[:, 0], one[:, 1]
    tiny = 1e-3 * (1 + np.abs(mean))
    noise, noises = np.maximum(noise, tiny), np.maximum(others[:, 1], tiny)
    steady = np.abs(others[:, 0] - mean) <= spec.sensor_sigmas * np.maximum(noise, noises)
    factor = np.maximum(noises / noise, noise / noises)
    return bool(steady.all() and (factor <= spec.sensor_ratio).all())
