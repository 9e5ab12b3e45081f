"""How far a scene's things are and how warm, and what a depth and a thermal camera beside the first one would see.

Drawn from `scene.look`, apart from everything else, so that a scene looks and sounds the same with or without them.
Depth is in millimetres a level, 0 where the sensor has no reading; heat in hundredths of a kelvin a level, as
radiometric cameras give it. Shapes: D things, T frames, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anymodal.playground.render import signed_distance
from anymodal.playground.world import Scene, Thing

KELVIN = 273.15
RAMP_S = 0.35  # that a change of heat takes, always within one second of media time
SHOWN_S = 0.15  # a thing seen for less of a second is not asked about, one seen for less than UNSURE_S might be missed
UNSURE_S = 0.55


@dataclass(frozen=True, slots=True)
class Change:
    """A thing gets warmer or colder by `kelvin`, from `t_s` on over RAMP_S."""

    t_s: float
    kelvin: float

    @property
    def word(self) -> str:
        return "warmer" if self.kelvin > 0 else "colder"


@dataclass(frozen=True, slots=True)
class Fields:
    """Of each thing: its distance in metres, its temperature in degrees Celsius at first, and how that changes."""

    far_m: tuple[float, ...]
    warm_c: tuple[float, ...]
    changes: tuple[Change | None, ...]

    def celsius(self, thing: int, t_s: float) -> float:
        change = self.changes[thing]
        if change is None:
            return self.warm_c[thing]
        return self.warm_c[thing] + change.kelvin * min(1.0, max(0.0, (t_s - change.t_s) / RAMP_S))


def fields_of(scene: Scene) -> Fields:
    """Distances and temperatures of a scene's things."""
    spans = tuple((t.appear_s, t.vanish_s) for t in scene.things)
    return _draw(scene.look, scene.duration_s, spans)


@lru_cache(maxsize=256)
def _draw(look: int, duration_s: float, spans: tuple[tuple[float, float], ...]) -> Fields:
    rng = np.random.default_rng([look, 3])
    count = len(spans)
    far_m = _spread(rng, count, 0.6, 4.8)
    warm_c = _spread(rng, count, 46.0, 98.0)  # with a change, never down to the room's
    changes: list[Change | None] = []
    taken: set[int] = set()  # one change a second, so that a window's token has one to tell
    for appear_s, vanish_s in spans:
        seconds = range(max(0, math.ceil(appear_s)), min(math.floor(vanish_s), math.ceil(duration_s) - 1))
        free = [second for second in seconds if second not in taken]
        if not free or rng.random() < 0.4:
            changes.append(None)
            continue
        second = int(rng.choice(free))
        taken.add(second)
        changes.append(Change(second + float(rng.uniform(0.06, 0.5)), float(rng.uniform(14, 24) * rng.choice([-1, 1]))))
    return Fields(far_m, warm_c, tuple(changes))


def _spread(rng, count: int, low: float, high: float) -> tuple[float, ...]:
    """Values in [low, high] in no order, no two of which are close."""
    if not count:
        return ()
    step = (high - low) / count
    values = low + step * (np.arange(count) + rng.uniform(0.2, 0.8, count))
    return tuple(float(v) for v in rng.permutation(values))


# --- what holds in one second ------------------------------------------------------------------------------------

def nearest(scene: Scene, second: int) -> Thing | None:
    """The thing that is nearest in a second of media time; None: nothing is there, or it cannot be said for certain."""
    fields = fields_of(scene)
    return _first(scene, second, lambda i: (fields.far_m[i],) * 2)


def hottest(scene: Scene, second: int) -> Thing | None:
    """The warmest thing from a second's beginning to its end; None as for `nearest`."""
    fields = fields_of(scene)
    return _first(scene, second, lambda i: (-fields.celsius(i, second), -fields.celsius(i, second + 1.0)))


def _first(scene: Scene, second: int, rank) -> Thing | None:
    """The thing of the lowest rank at the second's beginning and at its end, if it is not one that comes or goes."""
    seen_s = [min(t.vanish_s, second + 1.0) - max(t.appear_s, float(second)) for t in scene.things]
    shown = [i for i, s in enumerate(seen_s) if s > SHOWN_S]
    if not shown:
        return None
    ends = {min(shown, key=lambda i: rank(i)[end]) for end in (0, 1)}
    best = ends.pop()
    return scene.things[best] if not ends and seen_s[best] > UNSURE_S else None


def changed(scene: Scene, second: int) -> list[tuple[Thing, Change]]:
    """The things whose heat changes in a second, and how."""
    pairs = zip(scene.things, fields_of(scene).changes, strict=True)
    return [(t, c) for t, c in pairs if c is not None and second <= c.t_s < second + 1]


# --- pictures ----------------------------------------------------------------------------------------------------

def render_depth(scene: Scene, times_s: np.ndarray, width: int, height: int) -> np.ndarray:
    """Distance at each time, uint16 (T, H, W, 1), millimetres; 0 is no reading."""
    rng = np.random.default_rng([scene.look, 4])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tilt = rng.uniform(-0.8, 0.8, 2)
    wall = rng.uniform(5.8, 8.5) + tilt[0] * (x / width - 0.5) + tilt[1] * (y / height - 0.5)
    noise, holes = rng.uniform(0.0005, 0.002), rng.uniform(0, 0.02)
    far_m = fields_of(scene).far_m
    out = np.empty((len(times_s), height, width), np.float32)
    for frame, t_s in zip(out, times_s, strict=True):
        frame[:] = wall
        for i in sorted(range(len(far_m)), key=lambda i: -far_m[i]):
            _fill(frame, scene, scene.things[i], float(t_s), far_m[i])
        frame += rng.standard_normal(frame.shape, dtype=np.float32) * np.float32(noise) * frame**2
        frame[rng.random(frame.shape, dtype=np.float32) < holes] = 0
    return np.clip(np.round(out * 1000), 0, 65535).astype(np.uint16)[..., None]


def render_thermal(scene: Scene, times_s: np.ndarray, width: int, height: int) -> np.ndarray:
    """Temperature at each time, uint16 (T, H, W, 1), hundredths of a kelvin."""
    rng = np.random.default_rng([scene.look, 5])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tilt = rng.uniform(-1.5, 1.5, 2)
    room = rng.uniform(12, 24) + tilt[0] * (x / width - 0.5) + tilt[1] * (y / height - 0.5)
    noise, soft = rng.uniform(0.03, 0.2), rng.uniform(0, 0.2)
    fields = fields_of(scene)
    out = np.empty((len(times_s), height, width), np.float32)
    for frame, t_s in zip(out, times_s, strict=True):
        frame[:] = room
        for i in sorted(range(len(scene.things)), key=lambda i: -fields.far_m[i]):
            _fill(frame, scene, scene.things[i], float(t_s), fields.celsius(i, float(t_s)))
        for axis in (0, 1):
            frame[:] = frame * (1 - 2 * soft) + soft * (np.roll(frame, 1, axis) + np.roll(frame, -1, axis))
        frame += rng.standard_normal(frame.shape, dtype=np.float32) * np.float32(noise)
    return np.clip(np.round((out + KELVIN) * 100), 0, 65535).astype(np.uint16)[..., None]


RENDER = {"depth": render_depth, "thermal": render_thermal}  # by modality


def owners(scene: Scene, times_s: np.ndarray, side: int) -> np.ndarray:
    """Which thing each pixel shows, int (T, S, S): its number, -1 for none. Nearer things cover farther ones."""
    far_m = fields_of(scene).far_m
    out = np.full((len(times_s), side, side), -1.0, np.float32)
    for frame, t_s in zip(out, times_s, strict=True):
        for i in sorted(range(len(far_m)), key=lambda i: -far_m[i]):
            _fill(frame, scene, scene.things[i], float(t_s), float(i))
    return out.astype(np.int64)


def _fill(frame: np.ndarray, scene: Scene, thing: Thing, t_s: float, value: float) -> None:
    """Set the pixels that a thing covers."""
    if not thing.appear_s <= t_s < thing.vanish_s:
        return
    height, width = frame.shape
    (cx,), (cy,) = thing.at(np.array([t_s]))
    reach_x, reach_y = thing.radius * 1.3 / scene.aspect, thing.radius * 1.3
    x0, x1 = max(int((cx - reach_x) * width), 0), min(int((cx + reach_x) * width) + 2, width)
    y0, y1 = max(int((cy - reach_y) * height), 0), min(int((cy + reach_y) * height) + 2, height)
    u = ((np.arange(x0, x1, dtype=np.float32) + 0.5) / width - cx) * scene.aspect / thing.radius
    v = ((np.arange(y0, y1, dtype=np.float32) + 0.5) / height - cy) / thing.radius
    angle = thing.angle + thing.spin * t_s
    inside = signed_distance(thing.shape, u[None] * np.cos(angle) + v[:, None] * np.sin(angle),
                             -u[None] * np.sin(angle) + v[:, None] * np.cos(angle)) < 0
    frame[y0:y1, x0:x1][inside] = value
