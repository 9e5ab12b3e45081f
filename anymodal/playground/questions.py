"""Scene -> questions with answers, other right wordings, and the spans of media time that hold the evidence.

A kind of question is one generator below, which yields every question of that kind the scene answers without doubt;
`make_questions` draws from them. The wording is `wordings.ask`; answers are canonical and short.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from anymodal.playground.wordings import ask
from anymodal.playground.world import (
    COLORS,
    DEVICE_MOTIONS,
    DIRECTIONS,
    PITCHED,
    PLACES,
    SHAPES,
    SIZES,
    SOUNDS,
    VISUAL_EVENTS,
    Scene,
    Thing,
    heading,
    place_of,
)
from anymodal.types import Evidence

CANNOT_TELL = "I cannot tell"
OUTSIDE = "that is outside what I know"
EDGE = 0.03  # a place this close to the next one is not asked about

_VERBS = {"appears": ("appeared", "appear", "appearing"), "disappears": ("disappeared", "disappear", "disappearing"),
          "changes colour": ("changed colour", "change colour", "changing colour"),
          "bounces": ("bounced", "bounce", "bouncing"), "collides": ("collided", "collide", "colliding"),
          "stops": ("stopped", "stop", "stopping")}
_SOUND_VERBS = {"bell": ("rang", "ring", "ringing"), "clicks": ("started", "start", "starting")}
_DEVICE_VERBS = {
    "shaking": ("the device started shaking", "the device start shaking", "the device starting to shake"),
    "rotating": ("the device started rotating", "the device start rotating", "the device starting to rotate"),
    "walking": ("the walking started", "the walking start", "the walking starting"),
    "dropped": ("the device was dropped", "the device get dropped", "the device being dropped")}
_DOING = {"shaking": "shaking", "rotating": "being rotated", "walking": "being carried by someone walking",
          "dropped": "dropped", "still": "still"}
_A_SOUND = {"beep": "a beep", "rising chirp": "a rising chirp", "falling chirp": "a falling chirp", "bell": "a bell",
            "noise burst": "a noise burst", "clicks": "clicks"}
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
_WAY = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}


@dataclass(frozen=True, slots=True)
class Question:
    type: str
    question: str
    answer: str
    accept: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """A question before it is worded."""

    kind: str
    slots: dict[str, str]
    answer: str
    accept: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Happening:
    """Anything with a moment: a visual event, a sound, a device motion."""

    t_s: float
    past: str
    base: str
    ing: str
    modality: str
    short: tuple[str, ...] = ()


@dataclass(slots=True)
class Truth:
    """A scene with what the questions need worked out once."""

    scene: Scene
    rng: random.Random
    present: frozenset[str]
    happenings: list[Happening] = field(default_factory=list)

    def __post_init__(self) -> None:
        if "video" in self.present:
            for thing in self.scene.things:
                counts = Counter(e.kind for e in thing.events)
                for event in thing.events:
                    if counts[event.kind] == 1:
                        self.happenings.append(self._visual(thing, event.kind, event.t_s))
        if "audio" in self.present:
            kinds = Counter(s.kind for s in self.scene.sounds)
            self.happenings += [self._sound(s.kind, s.t0_s) for s in self.scene.sounds if kinds[s.kind] == 1]
        if "imu" in self.present:
            kinds = Counter(m.kind for m in self.scene.motions)
            self.happenings += [Happening(m.t0_s, *_DEVICE_VERBS[m.kind], "imu") for m in self.scene.motions
                                if kinds[m.kind] == 1 and m.t0_s > 0.3]

    def _visual(self, thing: Thing, kind: str, t_s: float) -> Happening:
        name = f"{thing.color} {thing.shape}"
        return Happening(t_s, *(f"the {name} {verb}" for verb in _VERBS[kind]), "video", (f"the {name}", name))

    def _sound(self, kind: str, t_s: float) -> Happening:
        verbs = _SOUND_VERBS.get(kind, ("sounded", "sound", "sounding"))
        return Happening(t_s, *(f"the {kind} {verb}" for verb in verbs), "audio", (f"the {kind}", kind, _A_SOUND[kind]))

    # -- names ---------------------------------------------------------------------------------------------------
    def refer(self, thing: Thing, *, hide: str = "") -> str | None:
        """A description that fits only this object; `hide` leaves out its "color", "shape" or "size"."""
        others = [t for t in self.scene.things if t is not thing]
        options = []
        if hide != "color" and hide != "shape":
            options += [f"{thing.color} {thing.shape}"] * 3
            if hide != "size":
                options.append(f"{thing.size} {thing.color} {thing.shape}")
        if hide != "shape" and all(t.shape != thing.shape for t in others):
            options += [thing.shape] * 2
        colors = {thing.color} | ({thing.recolor[1]} if thing.recolor else set())
        if hide != "color" and not any(t.color in colors or (t.recolor and t.recolor[1] in colors) for t in others):
            options.append(f"{thing.color} object")
        if hide != "size" and all(t.size != thing.size for t in others):
            options.append(f"{thing.size} object")
        if not others:
            options.append("object")
        return self.rng.choice(options) if options else None

    def seen_span(self, thing: Thing) -> tuple[Evidence, ...]:
        return self.span(max(thing.appear_s, 0.0), min(thing.vanish_s, self.scene.duration_s), "video")

    def span(self, start_s: float, end_s: float, modality: str) -> tuple[Evidence, ...]:
        """The windows that touch [start, end], as one span."""
        last = math.ceil(self.scene.duration_s) - 1
        first, final = math.floor(start_s + 1e-6), min(math.ceil(end_s - 1e-6) - 1, last)
        return (Evidence(float(first), float(max(final, first) + 1), modality),)

    def moment(self, t_s: float, modality: str) -> tuple[Evidence, ...]:
        return self.span(t_s, t_s, modality)

    def absent(self) -> Iterator[str]:
        """Descriptions near those in the scene that fit nothing in it."""
        names = set().union(*(t.names() for t in self.scene.things)) if self.scene.things else set()
        shapes, colors = {s for _, s in names}, {c for c, _ in names}
        for _ in range(6):
            if names and self.rng.random() < 0.7:
                color, shape = self.rng.choice(sorted(names))
                pair = (color, self.rng.choice(SHAPES)) if self.rng.random() < 0.5 else (self.rng.choice(COLORS), shape)
            else:
                pair = (self.rng.choice(COLORS), self.rng.choice(SHAPES))
            if pair not in names:
                yield " ".join(pair)
        for shape in self.rng.sample(SHAPES, 2):
            if shape not in shapes:
                yield shape
        for color in self.rng.sample(COLORS, 2):
            if color not in colors:
                yield f"{color} object"


def second(t_s: float) -> str:
    return str(int(t_s))


def _at(kind: str, slots: dict[str, str], t_s: float, truth: Truth, modality: str) -> Fact:
    k = int(t_s)
    accept = (f"between {k} and {k + 1} s", f"{k} s", f"{k}-{k + 1} s", f"at {k} seconds")
    return Fact(kind, slots, f"at {k} s", accept, truth.moment(t_s, modality))


def _yes(condition: bool) -> tuple[str, tuple[str, ...]]:
    return ("yes", ("yes it is", "yes it did", "yes there is")) if condition else ("no", ("no it is not", "no it did not",
                                                                                      "no there is not"))


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


# --- what is seen --------------------------------------------------------------------------------------------------

def _color(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="color")
        if name and not thing.recolor:
            yield Fact("color", {"obj": name}, thing.color, (f"it is {thing.color}",), truth.seen_span(thing))


def _shape(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="shape")
        if name:
            yield Fact("shape", {"obj": name}, thing.shape, (_a(thing.shape), f"it is {_a(thing.shape)}"),
                       truth.seen_span(thing))


def _size(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="size")
        if name:
            yield Fact("size", {"obj": name}, thing.size, (f"it is {thing.size}",), truth.seen_span(thing))


def _count(truth: Truth) -> Iterator[Fact]:
    things = truth.scene.things
    changing = {c for t in things if t.recolor for c in (t.color, t.recolor[1])}
    tests: list[tuple[str, Callable[[Thing], bool]]] = [("objects", lambda t: True)] * 2
    tests += [(f"{s}{'es' if s == 'cross' else 's'}", lambda t, s=s: t.shape == s) for s in SHAPES]
    tests += [(f"{c} objects", lambda t, c=c: t.color == c) for c in COLORS if c not in changing]
    tests += [(f"{z} objects", lambda t, z=z: t.size == z) for z in SIZES]
    whole = truth.span(0.0, truth.scene.duration_s, "video")
    found = [(n, sum(map(test, things))) for n, test in tests]
    zeros = [row for row in found if row[1] == 0]
    for name, number in [row for row in found if row[1]] + truth.rng.sample(zeros, min(1, len(zeros))):
        yield Fact("count", {"objs": name}, str(number), (_NUMBERS[number], f"there are {number}"), whole)


def _exists(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.rng.choice([f"{thing.color} {thing.shape}", f"{thing.color} {thing.shape}", thing.shape,
                                 f"{thing.size} {thing.color} {thing.shape}"])
        yield Fact("exists", {"obj": name, "a_obj": _a(name)}, *_yes(True), truth.seen_span(thing))
    whole = truth.span(0.0, truth.scene.duration_s, "video")
    for name in list(truth.absent())[: max(1, len(truth.scene.things))]:
        yield Fact("exists", {"obj": name, "a_obj": _a(name)}, *_yes(False), whole)


def _placed(x: float, y: float) -> tuple[str, tuple[str, ...]] | None:
    if min(abs(v - b) for v in (x, y) for b in (1 / 3, 2 / 3)) < EDGE:
        return None
    place = place_of(x, y)
    other = place.replace("top", "upper").replace("bottom", "lower") if " " in place else place
    return place, tuple(dict.fromkeys((f"at the {place}", "centre" if place == "middle" else other,
                                       "center" if place == "middle" else f"in the {other}")))


def _resting_place(thing: Thing, end_s: float) -> tuple[str, tuple[str, ...]] | None:
    """Where it is at the end, unless it crosses from one place to another in the last moment."""
    spots = [_placed(*(float(v) for v in thing.at(np.array(end_s - d)))) for d in (0.0, 0.25)]
    return spots[0] if spots[0] == spots[1] else None


def _place_now(truth: Truth) -> Iterator[Fact]:
    end = truth.scene.duration_s
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if not name:
            continue
        if thing.vanish_s < end:
            yield Fact("place_now", {"obj": name}, "it is gone", ("gone", "it disappeared", "nowhere"),
                       truth.moment(thing.vanish_s, "video"))
            continue
        spot = _resting_place(thing, end)
        if spot:
            yield Fact("place_now", {"obj": name}, *spot, truth.span(end - 1e-3, end, "video"))


def _place_first(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name, start = truth.refer(thing), max(thing.appear_s, 0.0)
        spots = [_placed(*(float(v) for v in thing.at(np.array(start + d)))) for d in (0.0, 0.2)]
        if name and spots[0] and spots[1] == spots[0]:
            yield Fact("place_first", {"obj": name}, *spots[0], truth.moment(start, "video"))


def _motion(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if not name or not thing.direction:
            continue
        if thing.direction == "still":
            yield Fact("motion", {"obj": name}, "it stays still", ("still", "it does not move", "nowhere"),
                       truth.seen_span(thing))
            continue
        end = min(thing.vanish_s, truth.scene.duration_s)
        legs = [(a, min(b, end)) for a, b, *move in zip(thing.times, thing.times[1:], thing.xs, thing.xs[1:], thing.ys,
                thing.ys[1:]) if abs(move[0] - move[1]) + abs(move[2] - move[3]) > 1e-4 and a < end]
        if legs and legs[-1][1] - legs[0][0] > 0.7:
            yield Fact("motion", {"obj": name}, thing.direction, (_WAY[thing.direction], f"it moves {thing.direction}",
                       f"{thing.direction}wards", f"it moves {_WAY[thing.direction]}"),
                       truth.span(legs[0][0], legs[-1][1], "video"))


def _event_kind(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if name and len(thing.events) == 1:
            kind = thing.events[0].kind
            accept = (kind, f"it {_VERBS[kind][0]}", kind.replace("colour", "color"))
            yield Fact("event_kind", {"obj": name}, f"it {kind}", accept,
                       truth.moment(thing.events[0].t_s, "video"))


def _event_when(truth: Truth) -> Iterator[Fact]:
    for h in truth.happenings:
        if h.modality == "video":
            yield _at("event_when", {"past": h.past, "base": h.base, "ing": h.ing}, h.t_s, truth, "video")


def _recolored(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="color")
        if name and thing.recolor:
            here = truth.moment(thing.recolor[0], "video")
            yield Fact("color_before", {"obj": name}, thing.color, (f"it was {thing.color}",), here)
            yield Fact("color_after", {"obj": name}, thing.recolor[1], (f"it became {thing.recolor[1]}",), here)


# --- across senses -------------------------------------------------------------------------------------------------

def _order(truth: Truth) -> Iterator[Fact]:
    pairs = [(a, b) for a in truth.happenings for b in truth.happenings
             if a.t_s + 1.0 <= b.t_s and int(a.t_s) != int(b.t_s)]
    truth.rng.shuffle(pairs)
    for first, then in pairs[:4]:
        a, b = (first, then) if truth.rng.random() < 0.5 else (then, first)
        slots = {f"{n}_{form}": getattr(h, form) for n, h in (("a", a), ("b", b)) for form in ("past", "base", "ing")}
        evidence = truth.moment(first.t_s, first.modality) + truth.moment(then.t_s, then.modality)
        same = set(first.short) & set(then.short)
        yield Fact("order", slots, first.ing, (first.past, *([] if same else first.short[:3])), evidence)
        yield Fact("order_yn", slots, *_yes(a is first), evidence)


def _sounds(truth: Truth) -> Iterator[Fact]:
    sounds = truth.scene.sounds
    heard = [(s, (s.kind, f"the {s.kind}", f"a {s.pitch} {s.kind}")) for s in sounds]
    if not sounds:
        whole = truth.span(0.0, truth.scene.duration_s, "audio")
        yield Fact("sound_what", {}, "silence", ("nothing", "no sound"), whole)
    elif len({s.kind for s in sounds}) == 1:
        sound, accept = heard[0]
        yield Fact("sound_what", {}, _A_SOUND[sound.kind], accept, truth.moment(sound.t0_s, "audio"))
    else:
        for kind, (sound, accept) in (("sound_first", heard[0]), ("sound_last", heard[-1])):
            yield Fact(kind, {}, _A_SOUND[sound.kind], accept, truth.moment(sound.t0_s, "audio"))
    counts = Counter(s.kind for s in sounds)
    for sound in sounds:
        if counts[sound.kind] > 1:
            continue
        name = "click train" if sound.kind == "clicks" else sound.kind
        if sound.kind in PITCHED:
            yield Fact("pitch", {"sound": name}, sound.pitch, (f"it was {sound.pitch}",),
                       truth.moment(sound.t0_s, "audio"))
        h = truth._sound(sound.kind, sound.t0_s)
        yield _at("sound_when", {"sound": name, "past": h.past, "base": h.base, "ing": h.ing}, sound.t0_s, truth, "audio")


def _sound_and_sight(truth: Truth) -> Iterator[Fact]:
    counts = Counter(s.kind for s in truth.scene.sounds)
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if not name or (thing.appear_s < 0 and thing.vanish_s > truth.scene.duration_s and truth.rng.random() < 0.8):
            continue
        inside = [s for s in truth.scene.sounds if thing.appear_s <= s.t0_s and s.t1_s <= thing.vanish_s]
        partly = [s for s in truth.scene.sounds if s not in inside and s.t1_s > thing.appear_s and s.t0_s < thing.vanish_s]
        if partly:
            continue
        for sound in truth.scene.sounds:
            if counts[sound.kind] > 1:
                continue
            h = truth._sound(sound.kind, sound.t0_s)
            slots = {"obj": name, "sound": sound.kind, "a_sound": _A_SOUND[sound.kind], "past": h.past, "ing": h.ing}
            yield Fact("sound_while_visible", slots, *_yes(sound in inside), truth.moment(sound.t0_s, "audio"))
        if len({s.kind for s in inside}) == 1:
            sound = inside[0]
            yield Fact("sound_during", {"obj": name}, _A_SOUND[sound.kind], (sound.kind, f"the {sound.kind}"),
                       truth.moment(sound.t0_s, "audio"))
        elif not inside and truth.rng.random() < 0.3:
            yield Fact("sound_during", {"obj": name}, "silence", ("nothing", "no sound"), truth.seen_span(thing))


def _device(truth: Truth) -> Iterator[Fact]:
    motions = truth.scene.motions
    kinds = {m.kind for m in motions}
    if not motions:
        yield Fact("device_motion", {}, "still", ("it was still", "it did not move"),
                   truth.span(0.0, truth.scene.duration_s, "imu"))
    elif len(kinds) == 1:
        kind = motions[0].kind
        yield Fact("device_motion", {}, kind, (f"it was {kind}", f"it was {_DOING[kind]}", _DOING[kind]),
                   truth.span(motions[0].t0_s, motions[0].t1_s, "imu"))
    for h in truth.happenings:
        if h.modality == "imu":
            yield _at("device_when", {"past": h.past, "base": h.base, "ing": h.ing}, h.t_s, truth, "imu")


# --- yes or no -----------------------------------------------------------------------------------------------------

def _statements(truth: Truth) -> Iterator[Fact]:
    rng, scene = truth.rng, truth.scene

    def pick(right: str, every: Sequence[str]) -> tuple[str, bool]:
        wrong = rng.choice([e for e in every if e != right])
        return (right, True) if rng.random() < 0.5 else (wrong, False)

    if "video" in truth.present:
        for thing in scene.things:
            seen = truth.seen_span(thing)
            name = truth.refer(thing, hide="color")
            if name and not thing.recolor:
                color, right = pick(thing.color, COLORS)
                yield Fact("yn_color", {"obj": name, "color": color}, *_yes(right), seen)
            name = truth.refer(thing, hide="size")
            if name:
                size, right = pick(thing.size, SIZES)
                yield Fact("yn_size", {"obj": name, "size": size}, *_yes(right), seen)
            spot = _resting_place(thing, scene.duration_s)
            if name and spot and thing.vanish_s > scene.duration_s:
                place, right = pick(spot[0], PLACES)
                now = truth.span(scene.duration_s - 1e-3, scene.duration_s, "video")
                where = "in the middle" if place == "middle" else f"at the {place}"
                yield Fact("yn_place", {"obj": name, "place": where}, *_yes(right), now)
            if name and thing.direction in DIRECTIONS:
                way, right = pick(thing.direction, tuple(DIRECTIONS))
                yield Fact("yn_motion", {"obj": name, "direction": _WAY[way]}, *_yes(right), seen)
            kinds = {e.kind for e in thing.events}
            kind = rng.choice(sorted(kinds)) if kinds and rng.random() < 0.5 else rng.choice(VISUAL_EVENTS)
            here = [e for e in thing.events if e.kind == kind]
            yield Fact("yn_event", {"base": f"the {thing.color} {thing.shape} {_VERBS[kind][1]}"}, *_yes(bool(here)),
                       truth.moment(here[0].t_s, "video") if here else seen)
    if "audio" in truth.present:
        kinds = sorted({s.kind for s in scene.sounds})
        kind = rng.choice(kinds) if kinds and rng.random() < 0.5 else rng.choice(SOUNDS)
        here = [s for s in scene.sounds if s.kind == kind]
        yield Fact("yn_sound", {"a_sound": _A_SOUND[kind]}, *_yes(bool(here)),
                   truth.moment(here[0].t0_s, "audio") if here else truth.span(0, scene.duration_s, "audio"))
    if "imu" in truth.present:
        kinds = sorted({m.kind for m in scene.motions})
        kind = rng.choice(kinds) if kinds and rng.random() < 0.5 else rng.choice(DEVICE_MOTIONS)
        here = [m for m in scene.motions if m.kind == kind]
        yield Fact("yn_device", {"doing": _DOING[kind]}, *_yes(bool(here)),
                   truth.span(here[0].t0_s, here[0].t1_s, "imu") if here else truth.span(0, scene.duration_s, "imu"))


# --- free descriptions ---------------------------------------------------------------------------------------------

def describe(truth: Truth, second_s: int | None = None) -> str:
    """Objects from left to right, then sounds, then the device; of one second, with places and events, or of all."""
    scene, parts = truth.scene, []
    low, high = (0.0, scene.duration_s) if second_s is None else (float(second_s), second_s + 1.0)
    if "video" in truth.present:
        for thing in sorted(scene.things, key=lambda t: float(t.at(np.array(max(low, t.appear_s)))[0])):
            if thing.vanish_s <= low or thing.appear_s >= high:
                continue
            middle = min(max((low + high) / 2, thing.appear_s), thing.vanish_s)
            name = f"{thing.size} {thing.color_at(low)} {thing.shape}"
            if second_s is not None:
                name += f" {place_of(*(float(v) for v in thing.at(np.array(middle))))}"
                way = heading(thing, low, high)
                name += f" going {way}" if way not in (None, "still") else ""
                name += "".join(f" {e.kind}" for e in thing.events if low <= e.t_s < high)
            parts.append(name)
    words = [", ".join(parts)] if parts else []
    if "audio" in truth.present:
        heard = [f"{s.pitch} {s.kind}" for s in scene.sounds
                 if (low <= s.t0_s < high if second_s is not None else True)]
        words.append(", ".join(dict.fromkeys(heard)) or "silence")
    if "imu" in truth.present:
        moved = [m.kind for m in scene.motions if m.t1_s > low + 0.15 and m.t0_s < high]
        words.append(", ".join(dict.fromkeys(moved)) or "still")
    return "; ".join(words)


def _caption(truth: Truth) -> Iterator[Fact]:
    yield Fact("caption", {}, describe(truth), (), truth.span(0.0, truth.scene.duration_s, "video"))


def _describe_at(truth: Truth) -> Iterator[Fact]:
    for _ in range(3):
        k = truth.rng.randrange(int(truth.scene.duration_s))
        yield Fact("describe_at", {"t": str(k)}, describe(truth, k), (), truth.moment(k, "video"))


# --- what cannot be told -------------------------------------------------------------------------------------------

def _unanswerable(truth: Truth) -> Iterator[Fact]:
    rng = truth.rng
    if "video" in truth.present:
        for name in truth.absent():
            kind = rng.choice(("color", "size", "place_now", "place_first", "motion", "event_kind", "color_before", "shape",
                               "event_when"))
            if (kind == "color" and name.split()[0] in COLORS) or (kind == "shape" and name.split()[-1] in SHAPES):
                continue
            verb = _VERBS[rng.choice(VISUAL_EVENTS)]
            slots = {"obj": name, **{f: f"the {name} {v}" for f, v in zip(("past", "base", "ing"), verb, strict=True)}}
            yield Fact(kind, slots, CANNOT_TELL)
        for thing in truth.scene.things:
            kinds = {e.kind for e in thing.events}
            kind = rng.choice([k for k in VISUAL_EVENTS if k not in kinds])
            slots = {f: f"the {thing.color} {thing.shape} {v}" for f, v in zip(("past", "base", "ing"), _VERBS[kind],
                                                                          strict=True)}
            yield Fact("event_when", slots, CANNOT_TELL)
    elif rng.random() < 0.5:
        name = f"{rng.choice(COLORS)} {rng.choice(SHAPES)}"
        yield Fact(rng.choice(("size", "place_now", "motion", "event_kind")), {"obj": name}, CANNOT_TELL)
        yield Fact("color", {"obj": rng.choice(SHAPES)}, CANNOT_TELL)
        yield Fact("count", {"objs": "objects"}, CANNOT_TELL)
    heard = {s.kind for s in truth.scene.sounds} if "audio" in truth.present else set()
    sound = rng.choice([s for s in SOUNDS if s not in heard])
    h = truth._sound(sound, 0.0)
    name = "click train" if sound == "clicks" else sound
    yield Fact("sound_when", {"sound": name, "past": h.past, "base": h.base, "ing": h.ing}, CANNOT_TELL)
    if sound in PITCHED:
        yield Fact("pitch", {"sound": name}, CANNOT_TELL)
    if "audio" not in truth.present:
        yield Fact("sound_what", {}, CANNOT_TELL)
    moved = {m.kind for m in truth.scene.motions} if "imu" in truth.present else set()
    motion = rng.choice([m for m in DEVICE_MOTIONS if m not in moved])
    yield Fact("device_when", dict(zip(("past", "base", "ing"), _DEVICE_VERBS[motion], strict=True)), CANNOT_TELL)
    if "imu" not in truth.present:
        yield Fact("device_motion", {}, CANNOT_TELL)


_NEEDS: tuple[tuple[Callable[[Truth], Iterator[Fact]], frozenset[str]], ...] = (
    *((f, frozenset({"video"})) for f in (_color, _shape, _size, _count, _exists, _place_now, _place_first, _motion,
                                          _event_kind, _event_when, _recolored)),
    (_order, frozenset()), (_sounds, frozenset({"audio"})), (_sound_and_sight, frozenset({"video", "audio"})),
    (_device, frozenset({"imu"})), (_statements, frozenset()), (_caption, frozenset()), (_describe_at, frozenset()),
    (_unanswerable, frozenset()))

KINDS = ("color", "shape", "size", "count", "exists", "place_now", "place_first", "motion", "event_kind", "event_when",
         "color_before", "color_after", "order", "order_yn", "sound_what", "sound_first", "sound_last", "pitch",
         "sound_when", "sound_while_visible", "sound_during", "device_motion", "device_when", "yn_color", "yn_size",
         "yn_place", "yn_motion", "yn_event", "yn_sound", "yn_device", "caption", "describe_at", "unanswerable")
YES_NO = frozenset({"exists", "order_yn", "sound_while_visible", *(k for k in KINDS if k.startswith("yn_"))})
DESCRIPTIONS = frozenset({"caption", "describe_at"})  # scored by attributes, not exact match
# how often a kind is drawn, relative to 1: the hard ones more, the yes/no statements less
WEIGHTS = {"place_now": 1.6, "place_first": 1.6, "motion": 1.4, "event_kind": 1.3, "event_when": 1.8, "order": 1.6,
           "order_yn": 1.2, "sound_when": 1.3, "device_when": 1.2, "sound_while_visible": 1.5, "sound_during": 1.2,
           "count": 1.5, "unanswerable": 1.5, "describe_at": 1.6, "caption": 0.5, "sound_first": 0.8,
           "sound_last": 0.8, **{k: 0.5 for k in KINDS if k.startswith("yn_")}}


def facts(scene: Scene, rng: random.Random, present: Sequence[str] = ("video", "audio", "imu")) -> dict[str, list[Fact]]:
    """Every question the scene can be asked, by type."""
    truth = Truth(scene, rng, frozenset(present))
    found: dict[str, list[Fact]] = {}
    for make, needs in _NEEDS:
        if needs <= truth.present:
            for fact in make(truth):
                kind = "unanswerable" if make is _unanswerable else fact.kind
                found.setdefault(kind, []).append(fact)
    return found


def make_questions(scene: Scene, rng: random.Random, *, held_out: bool = False, count: int | None = None,
                   kinds: Sequence[str] | None = None, present: Sequence[str] = ("video", "audio", "imu"),
                   noise: float = 1.0) -> list[Question]:
    """Worded questions about a scene: `count` drawn by weight, or one of every type that it answers.

    held_out: use the wordings kept from training. present: the modalities the asker will have.
    """
    found = {k: v for k, v in facts(scene, rng, present).items() if kinds is None or k in kinds}
    chosen: list[tuple[str, Fact]] = []
    pool = sorted(found)
    if count is None:
        chosen = [(kind, rng.choice(found[kind])) for kind in pool]
    else:
        for _ in range(count):
            left = [k for k in pool if found[k]]
            if not left:
                break
            kind = rng.choices(left, [WEIGHTS.get(k, 1.0) for k in left])[0]
            chosen.append((kind, found[kind].pop(rng.randrange(len(found[kind])))))
    return [Question(kind, ask(rng, fact.kind, fact.slots, held_out=held_out, noise=noise), fact.answer, fact.accept[:4],
                     fact.evidence) for kind, fact in chosen]
