"""The playground's world: what exists in a clip, where it is at each moment, and what happens.

A `Scene` is a pure function of (split, seed, index): no file, no pixels. `render`, `sound` and `imu` turn it into
signals, `questions` into questions with answers. Positions are in frame units (x right, y down, both 0..1),
radii in frame heights, times in seconds of media time.

The splits draw from disjoint random streams by construction: the split's code is part of the seed's entropy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
VISUAL_EVENTS = ("appears", "disappears", "changes colour", "bounces", "collides", "stops")
SOUNDS = ("beep", "rising chirp", "falling chirp", "bell", "noise burst", "clicks")
PITCHED = SOUNDS[:4]
PITCHES = ("low", "high")
DEVICE_MOTIONS = ("shaking", "rotating", "walking", "dropped")  # and "still"
BACKGROUNDS = ("plain", "gradient", "texture", "noise")

# Colour and shape pairs never drawn for training: the compositional test is made of them.
HELD_OUT_PAIRS = frozenset({("purple", "star"), ("green", "ring"), ("orange", "square"),
                            ("blue", "cross"), ("pink", "triangle"), ("white", "circle")})
SHARES = (0.22, 0.22, 0.28, 0.2, 0.08)  # of the scenes, by how many objects they have
SPLITS = {"train": 11, "val": 23, "test": 37, "demo": 53, "compositional": 71}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to one object at `t_s`. `other` names the partner of a collision."""

    kind: str
    t_s: float
    other: int | None = None


@dataclass(slots=True)
class Thing:
    """A coloured shape, its path (piecewise linear key points) and what happens to it."""

    color: str
    shape: str
    size: str
    radius: float
    appear_s: float
    vanish_s: float
    times: list[float]
    xs: list[float]
    ys: list[float]
    recolor: tuple[float, str] | None = None
    angle: float = 0.0
    spin: float = 0.0
    style: str = "flat"
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)  # hue shift, saturation and value factors around the name
    direction: str = "still"  # the one direction it ever moves in, "still", or "" when it changes
    events: list[Event] = field(default_factory=list)

    def at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.interp(t_s, self.times, self.xs), np.interp(t_s, self.times, self.ys)

    def visible(self, t_s: np.ndarray) -> np.ndarray:
        return (t_s >= self.appear_s) & (t_s < self.vanish_s)

    def color_at(self, t_s: float) -> str:
        return self.recolor[1] if self.recolor and t_s >= self.recolor[0] else self.color

    def names(self) -> set[tuple[str, str]]:
        """Every (colour, shape) it ever has."""
        return {(self.color, self.shape)} | ({(self.recolor[1], self.shape)} if self.recolor else set())


@dataclass(frozen=True, slots=True)
class Sound:
    kind: str
    pitch: str
    t0_s: float
    t1_s: float
    variant: float  # in [0, 1): the fine pitch, timbre and loudness


@dataclass(frozen=True, slots=True)
class DeviceMotion:
    kind: str
    t0_s: float
    t1_s: float


@dataclass(slots=True)
class Scene:
    duration_s: float
    aspect: float
    things: list[Thing]
    sounds: list[Sound]
    motions: list[DeviceMotion]
    background: str
    look: int  # seed of everything that is only appearance: background, lighting, blur, shake, sensor noise
    steady: bool = False  # a fixed camera: nothing shakes, and the light changes over minutes


def rng_for(split: str, seed: int, index: int) -> np.random.Generator:
    """The random stream of one clip. Different splits can never share one."""
    return np.random.default_rng(np.random.SeedSequence([SPLITS[split], seed, index]))


def make_scene(split: str, seed: int, index: int, *, seconds: float | None = None, things: int | None = None,
               counts: tuple[int, ...] = (1, 2, 3, 4, 5), least: int = 0) -> Scene:
    """Draw a scene. `seconds`: one length, else 4 to 30 s. `things`: up to that many objects, else up to one of `counts`,
    by `SHARES`; they are placed anew until there are `least`."""
    rng = rng_for(split, seed, index)
    duration_s = float(seconds) if seconds else float(rng.integers(4, 31))
    aspect = float(rng.choice([4 / 3, 4 / 3, 16 / 9, 1.0, 3 / 4]))
    count = things or int(rng.choice(counts, p=SHARES))
    wanted = [tuple(sorted(HELD_OUT_PAIRS)[rng.integers(len(HELD_OUT_PAIRS))])] if split == "compositional" else []
    found = _draw_things(rng, duration_s, aspect, count, wanted)
    while len(found) < least:
        found = _draw_things(rng, duration_s, aspect, count, wanted)
    return Scene(duration_s, aspect, found, _draw_sounds(rng, duration_s), _draw_motions(rng, duration_s),
                 str(rng.choice(BACKGROUNDS)), int(rng.integers(2**31)))


def still_scene(rng, *, pair: tuple[str, str] | None = None) -> Scene:
    """One moment: 0 to 5 objects at rest, for training a frame encoder."""
    aspect = float(rng.choice([4 / 3, 4 / 3, 16 / 9, 1.0, 3 / 4]))
    share = 0.75 if rng.random() < 0.15 else 1.1
    count = int(rng.choice(6, p=[0.04, 0.2, 0.24, 0.26, 0.18, 0.08]))
    things: list[Thing] = []
    for _ in range(count * 4):
        if len(things) == count:
            break
        look = _look(rng, things, pair if not things else None)
        if look is None:
            continue
        x = float(rng.uniform(look["radius"] * 0.7 / aspect, 1 - look["radius"] * 0.7 / aspect))
        y = float(rng.uniform(look["radius"] * 0.7, 1 - look["radius"] * 0.7))
        near = (np.hypot((x - t.xs[0]) * aspect, y - t.ys[0]) < share * (look["radius"] + t.radius) for t in things)
        if not any(near):
            things.append(Thing(**look, appear_s=-1e-6, vanish_s=1e9, times=[0.0], xs=[x], ys=[y]))
    return Scene(8.0, aspect, things, [], [], str(rng.choice(BACKGROUNDS)), int(rng.integers(2**31)))


# --- objects -----------------------------------------------------------------------------------------------------

def _draw_things(rng, duration_s: float, aspect: float, count: int, wanted: list) -> list[Thing]:
    """Up to `count` objects that never share a (colour, shape) and, in most scenes, never overlap."""
    overlap = 0.75 if rng.random() < 0.15 else 1.12  # share of the summed radii two centres must keep
    things: list[Thing] = []
    if count >= 2 and duration_s >= 3 and rng.random() < 0.3:
        things = _collision(rng, duration_s, aspect, wanted)
    for _ in range(count * 8):
        if len(things) >= count:
            break
        pair = wanted[0] if wanted and not things else None
        thing = _draw_thing(rng, duration_s, aspect, things, pair)
        if thing and all(_apart(thing, other, duration_s, aspect, overlap) for other in things):
            things.append(thing)
    return things


def _look(rng, things: list[Thing], pair: tuple[str, str] | None) -> dict | None:
    """Name and appearance of a new object, or None if its name is taken or kept for the compositional test."""
    color, shape = pair or (str(rng.choice(COLORS)), str(rng.choice(SHAPES)))
    taken = set().union(*(t.names() for t in things)) if things else set()
    if (color, shape) in taken or (not pair and (color, shape) in HELD_OUT_PAIRS):
        return None
    size = str(rng.choice(SIZES))
    radius = rng.uniform(0.07, 0.105) if size == "small" else rng.uniform(0.155, 0.2)
    turn = np.pi if shape in ("triangle", "star") else 0.25
    return {
        "color": color, "shape": shape, "size": size, "radius": float(radius),
        "angle": float(rng.uniform(-turn, turn)),
        "spin": float(rng.uniform(-1, 1)) if shape in ("triangle", "star") and rng.random() < 0.3 else 0.0,
        "style": str(rng.choice(["flat", "flat", "shaded", "outlined", "striped"])),
        "tint": (float(rng.uniform(-1, 1)), float(rng.uniform(0, 1)), float(rng.uniform(0, 1))),
    }


def _moment(rng, low_s: float, high_s: float) -> float | None:
    """A time in [low, high] well inside its second, so that which second it falls in can be seen."""
    if high_s - low_s < 0.2:
        return None
    for _ in range(8):
        t = rng.uniform(low_s, high_s)
        if 0.06 <= t % 1.0 <= 0.9:
            return float(t)
    return None


def _draw_thing(rng, duration_s: float, aspect: float, things: list[Thing], pair) -> Thing | None:
    look = _look(rng, things, pair)
    if look is None:
        return None
    appear = vanish = recolor_t = None
    if rng.random() < 0.28:
        appear = _moment(rng, 0.6, duration_s - 1.6)
    start = appear or 0.0
    if rng.random() < 0.28:
        vanish = _moment(rng, start + 1.2, duration_s - 0.5)
    end = vanish or duration_s + 1e-3
    if rng.random() < 0.28:
        recolor_t = _moment(rng, start + 0.9, end - 0.9)
    thing = Thing(**look, appear_s=start if appear else -1e-6, vanish_s=end, times=[], xs=[], ys=[])
    if appear:
        thing.events.append(Event("appears", appear))
    _walk(rng, thing, start, min(end, duration_s), aspect)
    if recolor_t:
        _recolor(rng, thing, recolor_t, things)
    if vanish:
        thing.events.append(Event("disappears", vanish))
    thing.events.sort(key=lambda e: e.t_s)
    gaps = np.diff([e.t_s for e in thing.events])
    return thing if len(gaps) == 0 or gaps.min() >= 0.7 else None


def _recolor(rng, thing: Thing, t_s: float, things: list[Thing]) -> None:
    taken = set().union(*(t.names() for t in things)) if things else set()
    choices = [c for c in COLORS if c != thing.color and (c, thing.shape) not in taken | HELD_OUT_PAIRS]
    if choices:
        thing.recolor = (t_s, str(rng.choice(choices)))
        thing.events.append(Event("changes colour", t_s))


def _walk(rng, thing: Thing, start_s: float, end_s: float, aspect: float) -> None:
    """Fill the path: rest, or legs along one axis that end in a bounce, a stop, or the end of its time."""
    margins = (thing.radius / aspect + 0.01, thing.radius + 0.01)
    x, y = (float(rng.uniform(m, 1 - m)) for m in margins)
    t = start_s
    thing.times, thing.xs, thing.ys = [t], [x], [y]
    if rng.random() < 0.3:
        return
    if rng.random() < 0.25:
        t = _rest(rng, thing, t, 0.8, 2.5)
    axis = int(rng.random() < 0.5 * min(1.0, 1 / aspect + 0.1))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    span = [(m, 1 - m) for m in margins][axis]
    near = rng.uniform(0.0, 0.35) * (span[1] - span[0])  # start on the far side, so that there is room to go
    series = (thing.xs, thing.ys)[axis]
    series[:] = [span[0] + near if sign > 0 else span[1] - near] * len(series)
    seen: set[str] = set()
    bounced = False
    while t < end_s - 0.3:
        position = (thing.xs, thing.ys)[axis][-1]
        room = span[1] - position if sign > 0 else position - span[0]
        speed = float(rng.uniform(0.14, 0.36))
        slope = float(rng.uniform(-0.15, 0.15)) * speed
        seen.add(("left", "right", "up", "down")[2 * axis + (sign > 0)])
        to_edge = room / speed
        bounce = not bounced and rng.random() < 0.5 and to_edge > 0.6
        if bounce and 0.08 < (t + to_edge) % 1.0 < 0.88 and t + to_edge < end_s - 0.7:
            t = _leg(thing, axis, sign * speed, slope, t, to_edge, margins)
            thing.events.append(Event("bounces", t))
            sign, bounced = -sign, True
            continue
        leg = min(to_edge * float(rng.uniform(0.65, 0.98)), end_s - t)
        stop_s = t + leg
        if stop_s < end_s - 0.8 and not 0.08 < stop_s % 1.0 < 0.88:
            leg = max(0.3, leg - 0.25)
            stop_s = t + leg
        t = _leg(thing, axis, sign * speed, slope, t, leg, margins)
        if t >= end_s - 0.8:
            break
        thing.events.append(Event("stops", t))
        if end_s - t < 4.0 or rng.random() < 0.5:
            break
        t = _rest(rng, thing, t, 1.5, 4.0)
        sign, bounced = -sign, False
    thing.direction = seen.pop() if len(seen) == 1 else ""


def _rest(rng, thing: Thing, t: float, low_s: float, high_s: float) -> float:
    t += float(rng.uniform(low_s, high_s))
    thing.times.append(t)
    thing.xs.append(thing.xs[-1])
    thing.ys.append(thing.ys[-1])
    return t


def _leg(thing: Thing, axis: int, velocity: float, slope: float, t: float, seconds: float, margins) -> float:
    steps = [thing.xs[-1], thing.ys[-1]]
    steps[axis] += velocity * seconds
    steps[1 - axis] += slope * seconds
    x, y = (float(np.clip(s, m, 1 - m)) for s, m in zip(steps, margins, strict=True))
    thing.times.append(t + seconds)
    thing.xs.append(x)
    thing.ys.append(y)
    return t + seconds


def _collision(rng, duration_s: float, aspect: float, wanted: list) -> list[Thing]:
    """Two objects that meet head on and turn back."""
    hit = _moment(rng, 1.2, duration_s - 1.0)
    pair: list[Thing] = []
    for _ in range(12):
        look = _look(rng, pair, wanted[0] if wanted and not pair else None)
        if look:
            pair.append(Thing(**look, appear_s=-1e-6, vanish_s=duration_s + 1e-3, times=[], xs=[], ys=[]))
        if len(pair) == 2:
            break
    if hit is None or len(pair) < 2:
        return []
    axis = int(rng.random() < 0.4)
    scale = (aspect, 1.0)[axis]
    meet = float(rng.uniform(0.4, 0.6))
    lane = float(rng.uniform(0.25, 0.75))
    for index, (thing, side) in enumerate(zip(pair, (-1.0, 1.0), strict=True)):
        margin = thing.radius / scale + 0.01
        touch = meet + side * thing.radius / scale
        room = (touch - margin) if side < 0 else (1 - margin - touch)
        if room < 0.08:
            return []
        speed = float(np.clip(rng.uniform(0.14, 0.3), 0.0, room / 0.7))
        travel = min(hit * speed, room)
        begin = hit - travel / speed
        leave = min(room * float(rng.uniform(0.5, 0.95)), (duration_s - hit) * speed)
        along = [touch + side * travel, touch + side * travel, touch, touch + side * leave]
        thing.times = [0.0, max(begin, 1e-3), hit, hit + leave / speed]
        series = [along, [lane] * 4]
        thing.xs, thing.ys = (series[axis], series[1 - axis])
        thing.direction = ""
        thing.events = [Event("collides", hit, 1 - index)]
        if thing.times[-1] < duration_s - 0.8:
            thing.events.append(Event("stops", thing.times[-1]))
    return pair


def _apart(a: Thing, b: Thing, duration_s: float, aspect: float, share: float) -> bool:
    t = np.arange(0, duration_s + 0.1, 0.1)
    ax, ay = a.at(t)
    bx, by = b.at(t)
    both = a.visible(t) & b.visible(t)
    distance = np.hypot((ax - bx) * aspect, ay - by)
    return not both.any() or float(distance[both].min()) >= share * (a.radius + b.radius)


# --- sounds and the device's own motion --------------------------------------------------------------------------

def _draw_sounds(rng, duration_s: float) -> list[Sound]:
    if rng.random() < 0.12:
        return []
    sounds: list[Sound] = []
    t = float(rng.uniform(0.1, max(0.3, duration_s * 0.5)))
    wanted = 1 + rng.binomial(max(1, int(duration_s / 4)), 0.5)
    while len(sounds) < wanted and t < duration_s - 0.7:
        if not 0.05 <= t % 1.0 <= 0.8:
            t += 0.2
            continue
        long = float(rng.uniform(0.35, 0.9))
        sounds.append(Sound(str(rng.choice(SOUNDS)), str(rng.choice(PITCHES)), t, min(t + long, duration_s),
                            float(rng.random())))
        t += long + float(rng.uniform(0.8, 0.35 * duration_s + 0.9))
    return sounds


def _draw_motions(rng, duration_s: float) -> list[DeviceMotion]:
    if rng.random() < 0.2:
        return []
    motions: list[DeviceMotion] = []
    t = 0.0 if rng.random() < 0.25 else float(rng.uniform(0.3, max(0.4, duration_s * 0.5)))
    wanted = 1 + rng.binomial(max(1, int(duration_s / 5)), 0.4)
    while len(motions) < wanted and t < duration_s - 0.8:
        if t and not 0.05 <= t % 1.0 <= 0.75:
            t += 0.2
            continue
        kind = str(rng.choice(DEVICE_MOTIONS))
        long = float(rng.uniform(0.45, 0.6)) if kind == "dropped" else float(rng.uniform(1.0, 3.0))
        motions.append(DeviceMotion(kind, t, min(t + long, duration_s)))
        t += long + float(rng.uniform(1.0, 3.0))
    return motions


def heading(thing: Thing, low_s: float, high_s: float) -> str | None:
    """Which way a thing goes between two moments: "left", "right", "up", "down", "still", or None where it turns, is
    hardly to be seen or hardly moves."""
    start, end = max(low_s, thing.appear_s), min(high_s, thing.vanish_s) - 1e-3
    turns = any(e.kind in ("bounces", "collides", "stops") for e in thing.events if low_s <= e.t_s < high_s)
    if turns or end - start <= 0.5:
        return None
    xs, ys = thing.at(np.array([start, end]))
    dx, dy = float(xs[1] - xs[0]), float(ys[1] - ys[0])
    if abs(dx) + abs(dy) < 0.01:
        return "still"
    if max(abs(dx), abs(dy)) <= 0.06:
        return None
    return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")


def place_of(x: float, y: float) -> str:
    """The third of the frame a point lies in, both ways."""
    column, row = min(int(x * 3), 2), min(int(y * 3), 2)
    return PLACES[row * 3 + column]


def without(scene: Scene, *, sounds: bool = False, motions: bool = False) -> Scene:
    """The same scene with its sounds or device motions taken out (for controls)."""
    return replace(scene, sounds=[] if sounds else scene.sounds, motions=[] if motions else scene.motions)
