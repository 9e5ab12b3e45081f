"""Streams of minutes to hours, drawn lazily: a sequence of chapters, each a scene of its own.

    stream = LongStream("val", seed=3, seconds=8 * 3600)
    for window in stream.windows(spec): ...           a few chapters are in memory at any time
    stream.truth(Condition("sound", "bell"))          whether it holds, window by window, of all hours

A `static` stream is what a fixed camera sees: in each chapter something goes on for a few seconds, and before and after
nothing changes but the light, slowly. Like clips, streams of different splits share nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from anymodal.config import BundleSpec
from anymodal.playground.render import render_frames, render_imu
from anymodal.playground.rule_questions import Condition, judge
from anymodal.playground.sound import render_audio
from anymodal.playground.world import DeviceMotion, Event, Scene, Sound, Thing, make_scene
from anymodal.types import Signal, Window

CHAPTERS_KEPT = 3
_STRIDE = 100_000  # scene indices that one stream may use


@dataclass(frozen=True)
class LongStream:
    """`seconds` of a playground, a function of its fields alone. Equal streams share what they keep."""

    split: str
    seed: int
    seconds: int
    static: bool = False
    chapter_s: int = 60
    act_s: int = 8  # of each chapter of a static stream, how long something goes on

    @property
    def chapters(self) -> int:
        return math.ceil(self.seconds / self.chapter_s)

    def chapter(self, number: int) -> Scene:
        """The scene of a chapter, on its own clock."""
        return _chapter(self, number)

    def scene_at(self, t_s: float) -> tuple[Scene, float]:
        """The scene on show at a time, and when it began."""
        number = min(int(t_s // self.chapter_s), self.chapters - 1)
        return self.chapter(number), float(number * self.chapter_s)

    def windows(self, spec: BundleSpec, first: int = 0, last: int | None = None) -> Iterator[Window]:
        """Windows `first` to `last`, both included, of every modality that the bundle and the playground have.

        The bundle's window must be a whole part of a chapter.
        """
        hop_s = spec.window_s
        count = int(self.seconds / hop_s + 1e-6)
        for k in range(first, count if last is None else min(count, last + 1)):
            signals = {name: self._signal(spec, name, k) for name in spec.modalities if name in ("video", "audio", "imu")}
            yield Window(k, k * hop_s, (k + 1) * hop_s, signals)

    def truth(self, condition: Condition, *, window_s: float = 1.0) -> list[bool | None]:
        """For every window, whether the condition holds in it, or None where that is in doubt."""
        found: list[bool | None] = []
        for k in range(int(self.seconds / window_s + 1e-6)):
            scene, begin_s = self.scene_at(k * window_s + 1e-6)
            found.append(judge(scene, condition, k * window_s - begin_s, (k + 1) * window_s - begin_s))
        return found

    def _signal(self, spec: BundleSpec, name: str, k: int) -> Signal:
        modality, hop_s = spec.modalities[name], spec.window_s
        rate_hz, t0_s = modality.rate_hz, k * hop_s
        if name == "video":
            closing = _frames(self, k + 1, hop_s, rate_hz, modality.size_px)
            frames = _frames(self, k, hop_s, rate_hz, modality.size_px)
            return Signal(name, frames, rate_hz, t0_s, closing[0] if (k + 1) * hop_s < self.seconds else None)
        number = int((t0_s + 1e-6) // self.chapter_s)
        samples = _samples(self, number, name, rate_hz)
        start = round((t0_s - number * self.chapter_s) * rate_hz)
        return Signal(name, samples[start : start + round(hop_s * rate_hz)], rate_hz, t0_s)


@lru_cache(maxsize=64)
def _chapter(stream: LongStream, number: int) -> Scene:
    index = stream.seed * _STRIDE + number
    length = min(stream.chapter_s, stream.seconds - number * stream.chapter_s)
    if not stream.static:
        return make_scene(stream.split, stream.seed, index, seconds=length)
    act = make_scene(stream.split, stream.seed, index, seconds=min(stream.act_s, length))
    dice = random.Random(f"{stream.split}/{stream.seed}/{number}")
    begin_s = float(dice.randint(0, length - int(act.duration_s)))
    return replace(
        act, duration_s=float(length), steady=True,
        things=[_later(thing, begin_s, act.duration_s, length) for thing in act.things],
        sounds=[Sound(s.kind, s.pitch, s.t0_s + begin_s, s.t1_s + begin_s, s.variant) for s in act.sounds],
        motions=[DeviceMotion(m.kind, m.t0_s + begin_s, m.t1_s + begin_s) for m in act.motions])


def _later(thing: Thing, by_s: float, act_s: float, length: float) -> Thing:
    """The same thing, its act begun later: before and after, it rests where it begins and where it ends."""
    end_s = min(thing.times[-1], act_s)
    x, y = (float(v) for v in thing.at(np.array(end_s)))
    path = [(t, px, py) for t, px, py in zip(thing.times, thing.xs, thing.ys, strict=True) if t < end_s] + [(end_s, x, y)]
    events = list(thing.events)
    still_before = len(path) < 2 or path[-1][1:] == path[-2][1:]
    if not still_before and end_s > act_s - 0.8 and thing.vanish_s > act_s and "stops" not in {e.kind for e in events}:
        events.append(Event("stops", end_s))  # it was still moving when its scene ended
    return replace(
        thing, spin=0.0, appear_s=thing.appear_s + by_s if thing.appear_s > 0 else thing.appear_s,
        vanish_s=thing.vanish_s + by_s if thing.vanish_s < act_s else length + 1e-3,
        times=[t + by_s for t, _, _ in path], xs=[p[1] for p in path], ys=[p[2] for p in path],
        recolor=(thing.recolor[0] + by_s, thing.recolor[1]) if thing.recolor else None,
        events=[Event(e.kind, e.t_s + by_s, e.other) for e in events])


@lru_cache(maxsize=4)
def _frames(stream: LongStream, k: int, hop_s: float, rate_hz: float, size_px: int) -> np.ndarray:
    """uint8 (T, H, W, 3): the frames of window k, or the last ones of all past the end."""
    first, stop = (int(np.ceil(n * hop_s * rate_hz - 1e-6)) for n in (k, k + 1))
    scene, begin_s = stream.scene_at(k * hop_s + 1e-6)
    times_s = np.minimum(np.arange(first, stop) / rate_hz - begin_s, scene.duration_s - 1e-3)
    return render_frames(scene, times_s, size_px, size_px)


@lru_cache(maxsize=2 * CHAPTERS_KEPT)
def _samples(stream: LongStream, number: int, name: str, rate_hz: float) -> np.ndarray:
    scene = stream.chapter(number)
    return render_audio(scene, int(rate_hz)) if name == "audio" else render_imu(scene, rate_hz)
