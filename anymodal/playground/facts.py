"""What questions are made of: a scene's truth with names for its things and moments, and facts that are not yet worded.

Generators of facts are in `facts_seen.py` and `facts_heard.py`; `questions.py` draws from them and words them.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from anymodal.playground.world import COLORS, SHAPES, Scene, Thing
from anymodal.types import Evidence

CANNOT_TELL = "I cannot tell"
OUTSIDE = "that is outside what I know"

VERBS = {"appears": ("appeared", "appear", "appearing"), "disappears": ("disappeared", "disappear", "disappearing"),
          "changes colour": ("changed colour", "change colour", "changing colour"),
          "bounces": ("bounced", "bounce", "bouncing"), "collides": ("collided", "collide", "colliding"),
          "stops": ("stopped", "stop", "stopping")}
SOUND_VERBS = {"bell": ("rang", "ring", "ringing"), "clicks": ("started", "start", "starting")}
DEVICE_VERBS = {
    "shaking": ("the device started shaking", "the device start shaking", "the device starting to shake"),
    "rotating": ("the device started rotating", "the device start rotating", "the device starting to rotate"),
    "walking": ("the walking started", "the walking start", "the walking starting"),
    "dropped": ("the device was dropped", "the device get dropped", "the device being dropped")}
DOING = {"shaking": "shaking", "rotating": "being rotated", "walking": "being carried by someone walking",
          "dropped": "dropped", "still": "still"}
A_SOUND = {"beep": "a beep", "rising chirp": "a rising chirp", "falling chirp": "a falling chirp", "bell": "a bell",
            "noise burst": "a noise burst", "clicks": "clicks"}
NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
WAY = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}


# on the way to an answer: a second to look at, what is found there, or the seconds of several things
Step = int | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """`steps`: what leads to the answer where that takes more than one look, for training."""

    type: str
    question: str
    answer: str
    accept: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """A question before it is worded. accept: other right wordings of the answer; each is kept once.

    telling: its answer is not what most other moments would say, so that only the right moment gives it.
    """

    kind: str
    slots: dict[str, str]
    answer: str
    accept: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    telling: bool = False
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "accept", tuple(dict.fromkeys(a for a in self.accept if a != self.answer)))


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
                        self.happenings.append(self.visual(thing, event.kind, event.t_s))
        if "audio" in self.present:
            kinds = Counter(s.kind for s in self.scene.sounds)
            self.happenings += [self.sound(s.kind, s.t0_s) for s in self.scene.sounds if kinds[s.kind] == 1]
        if "imu" in self.present:
            kinds = Counter(m.kind for m in self.scene.motions)
            self.happenings += [Happening(m.t0_s, *DEVICE_VERBS[m.kind], "imu") for m in self.scene.motions
                                if kinds[m.kind] == 1 and m.t0_s > 0.3]

    def visual(self, thing: Thing, kind: str, t_s: float) -> Happening:
        name = f"{thing.color} {thing.shape}"
        return Happening(t_s, *(f"the {name} {verb}" for verb in VERBS[kind]), "video", (f"the {name}", name))

    def sound(self, kind: str, t_s: float) -> Happening:
        verbs = SOUND_VERBS.get(kind, ("sounded", "sound", "sounding"))
        return Happening(t_s, *(f"the {kind} {verb}" for verb in verbs), "audio", (f"the {kind}", kind, A_SOUND[kind]))

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


def when(kind: str, slots: dict[str, str], t_s: float, truth: Truth, modality: str) -> Fact:
    k = int(t_s)
    accept = (f"between {k} and {k + 1} s", f"{k} s", f"{k}-{k + 1} s", f"at {k} seconds")
    return Fact(kind, slots, f"at {k} s", accept, truth.moment(t_s, modality))


def yes_or_no(condition: bool) -> tuple[str, tuple[str, ...]]:
    return ("yes", ("yes it is", "yes it did", "yes there is")) if condition else ("no", ("no it is not", "no it did not",
                                                                                      "no there is not"))


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
