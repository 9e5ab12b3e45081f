"""Drills: dense questions for training alone, every token of whose answers has to be looked up.

    color at 3 s: circle                    ->  yellow
    shape at 3 s: pink, white               ->  ring, star
    place of the red circle at 0, 2 s       ->  left, gone
    when: the ring appears, the bell starts ->  3, 5
    sound at 1, 4 s                         ->  bell, silence

A question for users looks up one thing. Descriptions name colour before shape, so that from them a model learns to find a
thing by its colour; finding it by its shape stayed at chance until it was drilled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from anymodal.playground.facts_fields import usual_shape
from anymodal.playground.facts_seen import listed
from anymodal.playground.fields import Change, fields_of, hottest, nearest
from anymodal.playground.questions import Question
from anymodal.playground.world import (
    COLORS,
    DEVICE_MOTIONS,
    DIRECTIONS,
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
from anymodal.training.claims import EDGE

Maker = Callable[[Scene, random.Random], Iterator[Question]]
GONE = "gone"
MOST = 3  # lookups in one drill


def drills(scene: Scene, dice: random.Random, count: int, present: tuple[str, ...],
           alone: bool | tuple[str, ...] = False) -> list[Question]:
    """At most `count` drills about a scene, in the modalities that are present. `alone`: one lookup each, of all of `ALONE`
    or of those named: the circuits that do it form within a few hundred steps of these alone, and hardly among others.
    """
    if alone:
        return _lookups(scene, dice, count, present, tuple(ALONE) if alone is True else alone)
    makers = [m for modality, m in _MAKERS if modality in present]
    found: list[Question] = []
    for _ in range(3 * count):
        if makers and len(found) < count:
            found += [drill for drill in dice.choice(makers)(scene, dice) if not _dull(drill) or dice.random() < 0.15]
    return found


def _dull(drill: Question) -> bool:
    said = drill.answer.split(", ")
    return len(said) > 1 and len(set(said)) == 1


def _lookups(scene: Scene, dice: random.Random, count: int, present: tuple[str, ...],
             names: tuple[str, ...]) -> list[Question]:
    makers = [ALONE[name] for name in names if ALONE[name][0] <= set(present)]
    found: list[Question] = []
    for _ in range(3 * count):
        if makers and len(found) < count:
            _, share, make = dice.choices(makers, [share for _, share, _ in makers])[0]
            found += make(scene, dice)
    return found


def _one_at(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """color at 3 s: circle"""
    k, (key, value) = dice.randrange(int(scene.duration_s)), dice.choice(_PAIRS)
    if once := _rows(scene, k, key, value):
        thing, said = dice.choice(once)
        when = f" at {k} s" if scene.duration_s > 1 else ""
        yield Question(f"drill_{value}_by_{key}", f"{value}{when}: {thing}", said)


def _one_now(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """place now: circle"""
    key, last = dice.choice(("shape", "color")), int(scene.duration_s) - 1
    which = dice.choice(("now", "first"))
    rows = [(t, _KEYS[key](t, last)) for t in scene.things if t.vanish_s > last + 1.0 or which == "first"]
    once = [(t, name) for t, name in rows if sum(_KEYS[key](other, last) == name for other in scene.things) == 1]
    if once and (key == "shape" or not any(t.recolor for t in scene.things)):
        thing, name = dice.choice(once)
        if said := _where(thing, last + 1.0 if which == "now" else max(0.0, thing.appear_s)):
            yield Question(f"drill_place_{which}", f"place {which}: {name}", said)


def _one_time(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """when: the ring appears"""
    for drill in _times(scene, dice, most=1):
        yield Question("drill_when", drill.question, drill.answer)


def _one_sound(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """sound at 3 s"""
    for drill in _sounds(scene, dice, most=1):
        yield Question("drill_sound", drill.question, drill.answer)


def _one_sound_time(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """when: the bell starts"""
    kinds = [s.kind for s in scene.sounds]
    if once := [s for s in scene.sounds if kinds.count(s.kind) == 1]:
        sound = dice.choice(once)
        yield Question("drill_sound_when", f"when: the {sound.kind} starts", str(int(sound.t0_s)))


def _one_motion(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """device at 3 s"""
    for drill in _motions(scene, dice, most=1):
        yield Question("drill_device", drill.question, drill.answer)


def _one_motion_time(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """when: shaking starts"""
    kinds = [m.kind for m in scene.motions]
    if once := [m for m in scene.motions if kinds.count(m.kind) == 1]:
        motion = dice.choice(once)
        yield Question("drill_device_when", f"when: {motion.kind} starts", str(int(motion.t0_s)))


def _one_check(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """color: circle, red?"""
    for drill in dice.choice((_one_at, _one_at, _one_now))(scene, dice):
        every = _EVERY[drill.question.split()[0].rstrip(":")]
        said = drill.answer if dice.random() < 0.5 else dice.choice([v for v in every if v != drill.answer])
        yield Question("drill_check", f"{drill.question}, {said}?", "yes" if said == drill.answer else "no",
                       steps=(f"{drill.answer}, {said}",))


def _one_any(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """any: bell"""
    colors = {(t.color_at(s), t.shape) for t in scene.things for s in (t.appear_s, t.vanish_s)}
    there, every = dice.choice((
        ({f"{c} {s}" for c, s in colors}, [f"{c} {s}" for c in {c for c, _ in colors} for s in {s for _, s in colors}]),
        ({t.shape for t in scene.things}, SHAPES), ({c for c, _ in colors}, COLORS),
        ({f"{t.shape} {e.kind}" for t in scene.things for e in t.events},
         [f"{t.shape} {kind}" for t in scene.things for kind in VISUAL_EVENTS])))
    yield from _any(dice, there, every)


def _one_any_sound(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """any: bell"""
    yield from _any(dice, {s.kind for s in scene.sounds}, SOUNDS)


def _one_any_motion(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """any: shaking"""
    yield from _any(dice, {m.kind for m in scene.motions}, DEVICE_MOTIONS)


def _any(dice: random.Random, there: set[str], every: Sequence[str]) -> Iterator[Question]:
    right = dice.random() < 0.5
    choice = [v for v in every if (v in there) == right]
    if choice:
        said = dice.choice(sorted(choice))
        yield Question("drill_any", f"any: {said}", "yes" if said in there else "no")


def _one_first(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """first: the ring appears, the bell"""
    found = [(e.t_s, f"the {t.shape} {e.kind}") for t in scene.things for e in t.events]
    found += [(s.t0_s, f"the {s.kind}") for s in scene.sounds] + [(m.t0_s, m.kind) for m in scene.motions]
    names = [name for _, name in found]
    once = [row for row in found if names.count(row[1]) == 1]
    if len(once) > 1:
        one, two = dice.sample(once, 2)
        if abs(one[0] - two[0]) >= 1.0:
            yield Question("drill_first", f"first: {one[1]}, {two[1]}", min(one, two)[1],
                           steps=((int(one[0]), int(two[0])),))


def _one_pictured(word: str, find: Callable[[Scene, int], Thing | None]) -> Maker:
    def make(scene: Scene, dice: random.Random) -> Iterator[Question]:
        """nearest at 3 s"""
        last = int(scene.duration_s) - 1
        found = [find(scene, k) for k in range(last + 1)]
        usual = usual_shape(found)
        other = [k for k, thing in enumerate(found) if thing and thing.shape != usual]
        k = dice.choice(other) if other and dice.random() < 0.7 else dice.choice((dice.randrange(last + 1), last))
        when = f"at {k} s" if k < last or dice.random() < 0.5 else "now"
        if thing := found[k]:
            told = "" if k not in other else "_other"
            yield Question(f"drill_{word}{told}", f"{word} {when}", thing.shape)
    return make


def _one_change(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """warmer or colder: circle"""
    rows = _changes(scene)
    if rows:
        shape, change = dice.choice(rows)
        either = dice.choice(("warmer or colder", "colder or warmer"))
        yield Question("drill_warmer", f"{either}: {shape}", change.word,
                       steps=(int(change.t_s), f"{shape} {change.word}"))


def _one_change_time(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """warmer when: circle"""
    rows = _changes(scene)
    if rows:
        shape, change = dice.choice(rows)
        yield Question("drill_change_when", f"{change.word} when: {shape}", str(int(change.t_s)))


def _one_list(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """list: red"""
    if scene.things:
        thing = dice.choice(scene.things)
        tests: dict[str, Callable[[Thing], bool]] = {
            "all": lambda t: True, thing.shape: lambda t: t.shape == thing.shape,
            thing.size: lambda t: t.size == thing.size}
        if not any(t.recolor for t in scene.things):
            tests[thing.color] = lambda t: t.color == thing.color
        name = dice.choice(("all", *tests))
        yield Question("drill_list", f"list: {name}", listed([t for t in scene.things if tests[name](t)]))


def _changes(scene: Scene) -> list[tuple[str, Change]]:
    """What gets warmer or colder, by its shape, if that names it."""
    return [(t.shape, c) for t, c in zip(scene.things, fields_of(scene).changes, strict=True)
            if c and sum(t.shape == other.shape for other in scene.things) == 1]


def _rows(scene: Scene, k: int, key: str, value: str) -> list[tuple[str, str]]:
    """(key, value) of the things in second k whose key no other has."""
    shown = [t for t in scene.things if min(t.vanish_s, k + 1.0) - max(t.appear_s, float(k)) > 0.15]
    rows = [(_KEYS[key](t, k), _VALUES[value](t, k)) for t in shown]
    return [(a, b) for a, b in rows if b and sum(a == other for other, _ in rows) == 1]


def _of_many_things(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """One attribute of several things in one second, found by another."""
    k = dice.randrange(int(scene.duration_s))
    key = dice.choice(("color", "shape", "shape"))
    value = dice.choice([v for v in _VALUES if v != key])
    once = _rows(scene, k, key, value)
    if once:
        yield _drill(dice, f"{value} at {k} s: ", once)


def _of_one_thing(scene: Scene, dice: random.Random) -> Iterator[Question]:
    """Where or what one thing is, over time."""
    if not scene.things:
        return
    thing, value = dice.choice(scene.things), dice.choice(("place", "place", "color", "way", "event"))
    if sum(t.color == thing.color and t.shape == thing.shape for t in scene.things) > 1:
        return
    name = thing.shape if sum(t.shape == thing.shape for t in scene.things) == 1 else f"{thing.color} {thing.shape}"
    rows = []
    for k in range(int(scene.duration_s)):
        seen_s = min(thing.vanish_s, k + 1.0) - max(thing.appear_s, float(k))
        said = _VALUES[value](thing, k) if seen_s > 0.15 else GONE if seen_s <= 0 else ""
        rows += [(str(k), said)] if said else []
    if rows:
        yield _drill(dice, f"{value} of the {name} at ", rows, " s", sort=True)


def _times(scene: Scene, dice: random.Random, most: int = MOST) -> Iterator[Question]:
    """When several things happened."""
    rows = [(f"the {t.color_at(e.t_s)} {t.shape} {e.kind}", str(int(e.t_s))) for t in scene.things for e in t.events]
    rows = [row for row in rows if sum(row[0] == other for other, _ in rows) == 1]
    if rows:
        yield _drill(dice, "when: ", rows, most=most)


def _sounds(scene: Scene, dice: random.Random, most: int = MOST) -> Iterator[Question]:
    rows = []
    for k in range(int(scene.duration_s)):
        said = [f"{s.pitch} {s.kind}" for s in scene.sounds if s.t0_s < k + 0.9 and s.t1_s > k + 0.1]
        rows += [(str(k), said[0] if said else "silence")] if len(said) < 2 else []
    if rows:
        yield _drill(dice, "sound at ", rows, " s", sort=True, most=most)


def _motions(scene: Scene, dice: random.Random, most: int = MOST) -> Iterator[Question]:
    rows = []
    for k in range(int(scene.duration_s)):
        said = [m.kind for m in scene.motions if m.t0_s < k + 0.85 and m.t1_s > k + 0.15]
        rows += [(str(k), said[0] if said else "still")] if len(said) < 2 else []
    if rows:
        yield _drill(dice, "device at ", rows, " s", sort=True, most=most)


def _drill(dice: random.Random, head: str, rows: list[tuple[str, str]], tail: str = "", sort: bool = False,
           most: int = MOST) -> Question:
    chosen = dice.sample(rows, min(len(rows), dice.choice((1, 1, 1, 2, MOST)), most))
    if sort:
        chosen.sort(key=lambda row: int(row[0]))
    return Question("drill", head + ", ".join(key for key, _ in chosen) + tail, ", ".join(said for _, said in chosen))


def _place(thing: Thing, k: int) -> str:
    """Where it is at the end of second k; "" on the border of two places."""
    return _where(thing, min(k + 1.0, thing.vanish_s))


def _where(thing: Thing, t_s: float) -> str:
    xs, ys = thing.at(np.array([t_s - 1e-3]))
    x, y = float(xs[0]), float(ys[0])
    return "" if min(abs(v - b) for v in (x, y) for b in (1 / 3, 2 / 3)) < EDGE else place_of(x, y)


def _event(thing: Thing, k: int) -> str:
    here = [e.kind for e in thing.events if k <= e.t_s < k + 1.0]
    return "nothing" if not here else here[0] if len(here) == 1 else ""


_KEYS: dict[str, Callable[[Thing, int], str]] = {
    "color": lambda t, k: t.color_at(float(k)), "shape": lambda t, k: t.shape}
_VALUES: dict[str, Callable[[Thing, int], str]] = {
    **_KEYS, "size": lambda t, k: t.size, "place": _place, "way": lambda t, k: heading(t, k, k + 1.0) or "",
    "event": _event}
_PAIRS = (("shape", "color"), ("shape", "size"), ("shape", "place"), ("color", "shape"), ("color", "place"),
          ("shape", "way"), ("shape", "event"), ("shape", "place"))
_VIDEO, _AUDIO, _IMU = frozenset({"video"}), frozenset({"audio"}), frozenset({"imu"})
_DEPTH, _THERMAL = frozenset({"depth"}), frozenset({"thermal"})
ALONE: dict[str, tuple[frozenset[str], float, Maker]] = {  # needs, how often, maker
    "at": (_VIDEO, 3, _one_at), "now": (_VIDEO, 2, _one_now), "event_time": (_VIDEO, 4, _one_time),
    "sound": (_AUDIO, 1.5, _one_sound), "sound_time": (_AUDIO, 1.5, _one_sound_time),
    "device": (_IMU, 1.5, _one_motion), "device_time": (_IMU, 1.5, _one_motion_time),
    "check": (_VIDEO, 2, _one_check), "any": (_VIDEO, 2, _one_any), "any_sound": (_AUDIO, 1, _one_any_sound),
    "any_device": (_IMU, 1, _one_any_motion), "first": (_VIDEO | _AUDIO | _IMU, 2, _one_first),
    "list": (_VIDEO, 2, _one_list),
    "nearest": (_DEPTH, 1.5, _one_pictured("nearest", nearest)),
    "hottest": (_THERMAL, 1.5, _one_pictured("hottest", hottest)), "warmer": (_THERMAL, 2, _one_change),
    "change_time": (_THERMAL, 1, _one_change_time)}
_EVERY = {"color": COLORS, "shape": SHAPES, "size": SIZES, "place": PLACES, "way": (*DIRECTIONS, "still"),
          "event": (*VISUAL_EVENTS, "nothing")}
_MAKERS = (("video", _of_many_things), ("video", _of_many_things), ("video", _of_many_things), ("video", _of_one_thing),
           ("video", _of_one_thing), ("video", _times), ("audio", _sounds), ("imu", _motions))
