"""Facts about what is seen: one generator per kind, each yields all of its kind that the scene answers without doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from anymodal.playground.facts import NUMBERS, VERBS, WAY, Fact, Truth, when, with_article, yes_or_no
from anymodal.playground.world import COLORS, PLACES, SHAPES, SIZES, Thing, heading, place_of

EDGE = 0.03  # a place this close to the next one is not asked about


def _color(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="color")
        if name and not thing.recolor:
            yield Fact("color", {"obj": name}, thing.color, (f"it is {thing.color}",), truth.seen_span(thing))


def _shape(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="shape")
        if name:
            shape = with_article(thing.shape)
            yield Fact("shape", {"obj": name}, thing.shape, (shape, f"it is {shape}"), truth.seen_span(thing))


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
    found = [(n, [t for t in things if test(t)]) for n, test in tests]
    zeros = [row for row in found if not row[1]]
    for name, counted in [row for row in found if row[1]] + truth.rng.sample(zeros, min(1, len(zeros))):
        number = len(counted)
        accept = (NUMBERS[number], f"there {'is' if number == 1 else 'are'} {number}")
        yield Fact("count", {"objs": name}, str(number), accept, whole,
                   steps=(listed(counted),))


def listed(things: list[Thing]) -> str:
    """Things by name, in the order in which they are first seen, and within a second in that of `PLACES`."""
    def seen(thing: Thing) -> tuple[int, int]:
        start_s = max(thing.appear_s, 0.0)
        return int(start_s), PLACES.index(place_of(*(float(v) for v in thing.at(np.array(start_s)))))

    return ", ".join(f"{t.color} {t.shape}" for t in sorted(things, key=seen)) or "nothing"


def _exists(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.rng.choice([f"{thing.color} {thing.shape}", f"{thing.color} {thing.shape}", thing.shape,
                                 f"{thing.size} {thing.color} {thing.shape}"])
        yield Fact("exists", {"obj": name, "a_obj": with_article(name)}, *yes_or_no(True), truth.seen_span(thing))
    whole = truth.span(0.0, truth.scene.duration_s, "video")
    for name in list(truth.absent())[: max(1, len(truth.scene.things))]:
        yield Fact("exists", {"obj": name, "a_obj": with_article(name)}, *yes_or_no(False), whole)


def _placed(x: float, y: float) -> tuple[str, tuple[str, ...]] | None:
    if min(abs(v - b) for v in (x, y) for b in (1 / 3, 2 / 3)) < EDGE:
        return None
    place = place_of(x, y)
    other = place.replace("top", "upper").replace("bottom", "lower") if " " in place else place
    return place, tuple(dict.fromkeys((f"at the {place}", "centre" if place == "middle" else other,
                                       "center" if place == "middle" else f"in the {other}")))


def resting_place(thing: Thing, end_s: float) -> tuple[str, tuple[str, ...]] | None:
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
                       truth.moment(thing.vanish_s, "video"), steps=(int(thing.vanish_s),))
            continue
        spot = resting_place(thing, end)
        if spot:
            yield Fact("place_now", {"obj": name}, *spot, truth.span(end - 1e-3, end, "video"), steps=(int(end - 1e-3),))


def _place_first(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name, start = truth.refer(thing), max(thing.appear_s, 0.0)
        spots = [_placed(*(float(v) for v in thing.at(np.array(start + d)))) for d in (0.0, 0.2)]
        if name and spots[0] and spots[1] == spots[0]:
            yield Fact("place_first", {"obj": name}, *spots[0], truth.moment(start, "video"), steps=(int(start),))


def _motion(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if not name or not thing.direction:
            continue
        if thing.direction == "still":
            yield Fact("motion", {"obj": name}, "it stays still", ("still", "it does not move", "nowhere"),
                       truth.seen_span(thing), steps=moving(truth, thing))
            continue
        end = min(thing.vanish_s, truth.scene.duration_s)
        legs = [(a, min(b, end)) for a, b, *move in zip(thing.times, thing.times[1:], thing.xs, thing.xs[1:], thing.ys,
                thing.ys[1:]) if abs(move[0] - move[1]) + abs(move[2] - move[3]) > 1e-4 and a < end]
        if legs and legs[-1][1] - legs[0][0] > 0.7:
            yield Fact("motion", {"obj": name}, thing.direction, (WAY[thing.direction], f"it moves {thing.direction}",
                       f"{thing.direction}wards", f"it moves {WAY[thing.direction]}"),
                       truth.span(legs[0][0], legs[-1][1], "video"), steps=moving(truth, thing))


def moving(truth: Truth, thing: Thing) -> tuple[int, ...]:
    """The first second in which a thing moves its way all the time, or does not move."""
    seconds = range(int(max(thing.appear_s, 0.0)), int(truth.scene.duration_s))
    return tuple(k for k in seconds if heading(thing, float(k), k + 1.0) == thing.direction)[:1]


def _event_kind(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing)
        if name and len(thing.events) == 1:
            kind = thing.events[0].kind
            accept = (kind, f"it {VERBS[kind][0]}", kind.replace("colour", "color"))
            t_s = thing.events[0].t_s
            yield Fact("event_kind", {"obj": name}, f"it {kind}", accept, truth.moment(t_s, "video"), steps=(int(t_s),))


def _event_when(truth: Truth) -> Iterator[Fact]:
    for h in truth.happenings:
        if h.modality == "video":
            yield when("event_when", {"past": h.past, "base": h.base, "ing": h.ing}, h.t_s, truth, "video")


def _recolored(truth: Truth) -> Iterator[Fact]:
    for thing in truth.scene.things:
        name = truth.refer(thing, hide="color")
        if name and thing.recolor:
            here, k = truth.moment(thing.recolor[0], "video"), int(thing.recolor[0])
            first, last = int(max(thing.appear_s, 0.0)), int(min(thing.vanish_s, truth.scene.duration_s) - 1e-3)
            yield Fact("color_before", {"obj": name}, thing.color, (f"it was {thing.color}",), here,
                       steps=((k,), max(k - 1, first)))
            yield Fact("color_after", {"obj": name}, thing.recolor[1], (f"it became {thing.recolor[1]}",), here,
                       steps=((k,), min(k + 1, last)))


GENERATORS = (_color, _shape, _size, _count, _exists, _place_now, _place_first, _motion, _event_kind, _event_when,
              _recolored)
