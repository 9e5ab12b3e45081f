"""What each token of a window should say, in words: the bridge between perception and the language model.

A regional query of a window should say the words of the objects in its part of the frame, and each of three more that
look everywhere what happens to one object, in any order: two objects in one part of the frame are told as one. The sound
and device tokens say what is heard and felt. Read through the LM's own output layer, this makes soft tokens sums of word
embeddings, so that finding "the circle" is matching an embedding with itself. From answers alone, the LM had not
begun to read the tokens after 600 steps.
"""

from __future__ import annotations

import numpy as np

from anymodal.playground.fields import changed, hottest, nearest
from anymodal.playground.world import PLACES, VISUAL_EVENTS, Scene, heading, place_of
from anymodal.training.claims import HEARD, MOVED, motion_claims, sound_claims

NOTHING = ("nothing",)
HAPPENINGS = 3  # tokens that each say what happens to one thing
LEAVING, ENTERING = ("before",), ("after",)  # a thing that goes from one place to another is told by both of their tokens
# as "left" and "up" are places too, a token says where a thing goes in other words
WAYS = {"left": ("west",), "right": ("east",), "up": ("upward",), "down": ("downward",)}
EVENT_WORDS = frozenset({w for kind in VISUAL_EVENTS for w in kind.split()} | {w for way in WAYS.values() for w in way})
EVENT_WORDS |= {*LEAVING, *ENTERING}


def window_words(scene: Scene, window: int) -> dict[str, list[tuple[str, ...]]]:
    """Words by modality and token: video has one entry for each of PLACES, then HAPPENINGS more whose order says nothing;
    audio, imu and depth have one for the window, thermal one for the hottest thing and one for what gets warmer or colder.
    """
    low, high = float(window), window + 1.0
    places: list[list[str]] = [[] for _ in PLACES]
    for thing in scene.things:
        start, end = max(low, thing.appear_s), min(high, thing.vanish_s) - 1e-3
        if end - start < 0.15:
            continue
        words = [thing.color_at(low), thing.shape, thing.size]
        words += [w for e in thing.events if low <= e.t_s < high for w in e.kind.split()]
        if thing.recolor and low <= thing.recolor[0] < high:
            words.append(thing.recolor[1])
        words += WAYS.get(heading(thing, low, high), ())
        xs, ys = (v.tolist() for v in thing.at(np.array([start, end])))
        first, last = place_of(xs[0], ys[0]), place_of(xs[1], ys[1])
        for place in dict.fromkeys((first, last)):
            passing = () if first == last else LEAVING if place == first else ENTERING
            places[PLACES.index(place)] += [*words, *place.split(), *passing]
    heard = tuple(w for group, true in sound_claims(scene, window) for i in true for w in HEARD_WORDS[i])
    moved = tuple(w for group, true in motion_claims(scene, window) for i in true for w in MOVED_WORDS[i])
    near, hot = nearest(scene, window), hottest(scene, window)
    changing = tuple(w for thing, change in changed(scene, window) for w in (thing.shape, change.word))
    return {"video": [*(tuple(p) or NOTHING for p in places), *happenings(scene, low, high)],
            "audio": [heard or NOTHING], "imu": [moved or NOTHING],
            "depth": [("nearest", near.shape) if near else NOTHING],
            "thermal": [("hot", hot.shape) if hot else NOTHING, changing or NOTHING]}


def happenings(scene: Scene, low: float, high: float) -> list[tuple[str, ...]]:
    """What happens from `low` to `high` seconds, earliest first, HAPPENINGS of them: whose kind to whom. A thing that takes
    another colour is told twice, as it was before and as it is after."""
    found = []
    for thing in scene.things:
        for event in thing.events:
            if not low <= event.t_s < high:
                continue
            kind, rest = event.kind.split(), (thing.shape, thing.size)
            if thing.recolor and thing.recolor[0] == event.t_s:
                found += [(event.t_s, (thing.color, *rest, *kind, *LEAVING)),
                          (event.t_s, (thing.recolor[1], *rest, *kind, *ENTERING))]
            else:
                found.append((event.t_s, (thing.color_at(event.t_s), *rest, *kind)))
    told = [words for _, words in sorted(found, key=lambda row: row[0])][:HAPPENINGS]
    return told + [NOTHING] * (HAPPENINGS - len(told))


HEARD_WORDS = tuple(tuple(h.split()) for h in HEARD)  # "low", "bell", "starts"
MOVED_WORDS = tuple(tuple(m.split()[1:]) for m in MOVED)  # "shaking", "goes", "on"
