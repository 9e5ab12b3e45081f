"""What is true of one window, as contrast puts it: names that are in it, what holds of each object, sounds and motions.

A claim is a group of phrases with those of them that are true; a fact is what holds of a named object, in one aspect.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from anymodal.playground.world import (
    COLORS,
    DEVICE_MOTIONS,
    PITCHES,
    PLACES,
    SOUNDS,
    VISUAL_EVENTS,
    Scene,
    Thing,
    heading,
    place_of,
)
from anymodal.training.frames import PAIRS

NAMES = tuple(" ".join(p) for p in PAIRS)
MOVES = ("left", "right", "up", "down", "still")
NUMBERS = tuple(f"{n} objects" for n in range(6))
HEARD = tuple(f"{p} {s} {v}" for v in ("starts", "goes on") for p in PITCHES for s in SOUNDS) + ("silence",)
MOVED = tuple(f"device {m} {v}" for v in ("starts", "goes on") for m in DEVICE_MOTIONS) + ("device still",)
EDGE = 0.02

ASPECTS: dict[str, tuple[str, ...]] = {
    "from": PLACES, "at": PLACES, "size": ("small", "large"), "event": (*VISUAL_EVENTS, "nothing new"), "moves": MOVES,
    "becomes": COLORS}

# a claim: (group of phrases, index of the true ones)
Claim = tuple[tuple[str, ...], tuple[int, ...]]
Fact = tuple[str, str, int]  # (name of an object, aspect, index of what is true of it)


def sight_claims(scene: Scene, window: int, rng: random.Random) -> tuple[list[Claim], list[Fact]]:
    """What one window shows: how many objects and which, and what holds of each."""
    low, high = float(window), window + 1.0
    shown = [t for t in scene.things if min(t.vanish_s, high) - max(t.appear_s, low) > 0.15]
    claims: list[Claim] = [(NUMBERS, (len(shown),))] if len(shown) < len(NUMBERS) else []
    facts: list[Fact] = []
    names = {n for t in shown for n in t.names()}
    for thing in shown:
        name = f"{thing.color_at(low)} {thing.shape}"
        absent = tuple(n for n in NAMES if tuple(n.split()) not in names)
        claims.append(((name, *absent), (0,)))
        facts += [(name, aspect, index) for aspect, index in _thing_facts(thing, low, high)]
    return claims, facts


def _thing_facts(thing: Thing, low: float, high: float) -> Iterator[tuple[str, int]]:
    start, end = max(low, thing.appear_s), min(high, thing.vanish_s) - 1e-3
    xs, ys = thing.at(np.array([start, end]))
    for aspect, x, y in (("from", xs[0], ys[0]), ("at", xs[1], ys[1])):
        if min(abs(v - b) for v in (x, y) for b in (1 / 3, 2 / 3)) > EDGE:
            yield aspect, PLACES.index(place_of(x, y))
    yield "size", int(thing.size == "large")
    here = [e for e in thing.events if low <= e.t_s < high]
    if len(here) < 2:
        yield "event", ASPECTS["event"].index(here[0].kind if here else "nothing new")
    if (way := heading(thing, low, high)) is not None:
        yield "moves", MOVES.index(way)
    if thing.recolor and low <= thing.recolor[0] < high:
        yield "becomes", COLORS.index(thing.recolor[1])


def sound_claims(scene: Scene, window: int) -> list[Claim]:
    low, high = float(window), window + 1.0
    true = [HEARD.index(f"{s.pitch} {s.kind} starts") for s in scene.sounds if low <= s.t0_s < high]
    true += [HEARD.index(f"{s.pitch} {s.kind} goes on") for s in scene.sounds if s.t0_s < low and s.t1_s > low + 0.1]
    faint = any(s.t0_s < low < s.t1_s <= low + 0.1 for s in scene.sounds)
    return [] if faint and not true else [(HEARD, tuple(true) or (len(HEARD) - 1,))]


def motion_claims(scene: Scene, window: int) -> list[Claim]:
    low, high = float(window), window + 1.0
    true = [MOVED.index(f"device {m.kind} starts") for m in scene.motions if low <= m.t0_s < high]
    true += [MOVED.index(f"device {m.kind} goes on") for m in scene.motions if m.t0_s < low and m.t1_s > low + 0.1]
    faint = any(m.t0_s < low < m.t1_s <= low + 0.1 for m in scene.motions)
    return [] if faint and not true else [(MOVED, tuple(true) or (len(MOVED) - 1,))]
