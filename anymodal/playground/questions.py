"""Scene -> questions with answers, other right wordings, and the spans of media time that hold the evidence.

A kind of question is one generator of facts, which yields every fact of that kind the scene answers without doubt;
`make_questions` draws from them. The wording is `wordings.ask`; answers are canonical and short.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from anymodal.playground import facts_fields, facts_heard, facts_seen
from anymodal.playground.facts import CANNOT_TELL, OUTSIDE, Fact, Question, Truth
from anymodal.playground.wordings import ask
from anymodal.playground.world import Scene

__all__ = ["CANNOT_TELL", "DESCRIPTIONS", "FIELDS", "KINDS", "OUTSIDE", "WEIGHTS", "YES_NO", "Fact", "Question", "Truth",
           "describe", "facts", "make_questions"]

describe = facts_heard.describe

_NEEDS: tuple[tuple[Callable[[Truth], Iterator[Fact]], frozenset[str]], ...] = (
    *((make, frozenset({"video"})) for make in facts_seen.GENERATORS), *facts_heard.GENERATORS)

KINDS = ("color", "shape", "size", "count", "exists", "place_now", "place_first", "motion", "event_kind", "event_when",
         "color_before", "color_after", "order", "order_yn", "sound_what", "sound_first", "sound_last", "pitch",
         "sound_when", "sound_while_visible", "sound_during", "device_motion", "device_when", "nearest", "hottest",
         "warmer", "yn_color", "yn_size", "yn_place", "yn_motion", "yn_event", "yn_sound", "yn_device", "caption",
         "describe_at", "unanswerable")
FIELDS = frozenset({"nearest", "hottest", "warmer"})  # asked of depth and thermal pictures
YES_NO = frozenset({"exists", "order_yn", "sound_while_visible", *(k for k in KINDS if k.startswith("yn_"))})
DESCRIPTIONS = frozenset({"caption", "describe_at"})  # scored by attributes, not exact match
# how often a kind is drawn, relative to 1: the hard ones more
WEIGHTS = {"place_now": 1.6, "place_first": 1.6, "motion": 1.4, "event_kind": 1.3, "event_when": 1.8, "order": 1.6,
           "order_yn": 1.2, "sound_when": 1.3, "device_when": 1.2, "sound_while_visible": 1.5, "sound_during": 1.2,
           "count": 1.5, "unanswerable": 1.5, "describe_at": 1.6, "caption": 0.5, "sound_first": 0.8,
           "sound_last": 0.8, "nearest": 3.0, "hottest": 3.0, "warmer": 3.5,
           "color_before": 2.0, "color_after": 2.0, "yn_size": 2.2, "yn_place": 2.2, "yn_motion": 2.2, "yn_event": 2.2}

TELLING = 0.6


def facts(scene: Scene, rng: random.Random, present: Sequence[str] = ("video", "audio", "imu")) -> dict[str, list[Fact]]:
    """Every question the scene can be asked, by type."""
    truth = Truth(scene, rng, frozenset(present))
    found: dict[str, list[Fact]] = {}
    for make, needs in _NEEDS:
        if needs <= truth.present:
            for fact in make(truth):
                kind = "unanswerable" if make is facts_heard.unanswerable else fact.kind
                found.setdefault(kind, []).append(fact)
    truth.rng = _apart(scene)
    for make, needs in facts_fields.GENERATORS:
        if needs <= truth.present:
            for fact in make(truth):
                found.setdefault(fact.kind, []).append(fact)
    return found


def _apart(scene: Scene) -> random.Random:
    """What draws the questions of depth and thermal: the others are the same with and without them."""
    return random.Random(f"fields/{scene.look}")


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
        chosen = [(kind, rng.choice(found[kind])) for kind in pool if kind not in FIELDS]
    else:
        for _ in range(count):
            left = [k for k in pool if found[k]]
            if not left:
                break
            kind = rng.choices(left, [WEIGHTS.get(k, 1.0) for k in left])[0]
            chosen.append((kind, _drawn(rng, found[kind], kind)))
    asked = [_worded(rng, kind, fact, held_out, noise) for kind, fact in chosen]
    if count is None:
        apart = _apart(scene)
        asked += [_worded(apart, kind, apart.choice(found[kind]), held_out, noise) for kind in pool if kind in FIELDS]
    return asked


def _drawn(rng: random.Random, left: list[Fact], kind: str) -> Fact:
    """One of the facts, taken out; of what a camera of depth or heat shows, half of the time one that tells moments apart:
    where it is always the same answer, nobody learns to look at the second that is asked about."""
    telling = [i for i, fact in enumerate(left) if fact.telling] if kind in FIELDS and rng.random() < TELLING else []
    return left.pop(rng.choice(telling) if telling else rng.randrange(len(left)))


def unseen_questions(scene: Scene, rng: random.Random, *, present: Sequence[str], noise: float = 1.0) -> list[Question]:
    """What may be asked about depth and heat where there is no such camera, one question at most."""
    found = list(facts_fields.unseen(Truth(scene, rng, frozenset(present))))
    return [_worded(rng, "unanswerable", rng.choice(found), False, noise)] if found else []


def _worded(rng: random.Random, kind: str, fact: Fact, held_out: bool, noise: float) -> Question:
    text = ask(rng, fact.kind, fact.slots, held_out=held_out, noise=noise)
    return Question(kind, text, fact.answer, fact.accept[:4], fact.evidence, fact.steps)
