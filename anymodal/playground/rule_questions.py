"""Scene -> questions about its latest window alone, as standing rules ask them: "Now: a bell rings?" yes or no.

What a rule can wait for is a `Condition`: something that happens (a sound, an event, the device's motion) or holds (seen,
at a place, moving). `judge` says whether it does in a window, or None where people could differ; `conditions` draws some
that are true and some that nearly are: true of an earlier window, of another object, of another sound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anymodal.playground.questions import Question
from anymodal.playground.wordings import split_block, vary
from anymodal.playground.world import (
    COLORS,
    DEVICE_MOTIONS,
    DIRECTIONS,
    PITCHED,
    PITCHES,
    PLACES,
    SHAPES,
    SOUNDS,
    VISUAL_EVENTS,
    DeviceMotion,
    Event,
    Scene,
    Sound,
    Thing,
    heading,
    place_of,
)
from anymodal.session.rule_text import now_question
from anymodal.types import Evidence

KIND = "rule_now"
FAINT_S = 0.15  # of a sound, a motion or an object in a window: less may be missed
EDGE = 0.03
ANY = ""  # of a colour, a shape, a pitch or a kind: whichever

_VERBS = {
    "appears": "appears | shows up | comes into view | turns up | can be seen for the first time",
    "disappears": "disappears | vanishes | goes away | leaves | goes out of sight",
    "changes colour": "changes colour | changes color | changes its colour | turns another colour | becomes another color",
    "bounces": "bounces | bounces off the edge | bounces back | hits the edge and turns back",
    "collides": "collides | collides with something | crashes | hits something | bumps into something",
    "stops": "stops | comes to rest | halts | stops moving | comes to a stop"}
_SOUND_VERBS = {"bell": "rings | sounds | goes off", "clicks": "start | are heard | come", ANY: "is heard | comes | starts"}
_SOUND_FORMS = """{the_sound} {verb} | {a_sound} {verb} | {a_sound} {verb} | you hear {a_sound} | there is {a_sound}
{a_sound} can be heard | I could hear {a_sound} | you hear the sound of {a_sound} | there {be} {a_sound} to hear"""
_ANY_SOUND = "there is a sound | you hear something | any sound is heard | something makes a sound | it is not silent"
_DEVICE = {
    "shaking": """the device is shaken | the device shakes | the camera shakes | someone shakes the device
the device is shaking | the phone is being shaken | the device starts shaking | the camera is shaky""",
    "rotating": """the device is rotated | the device rotates | the camera turns | someone turns the device
the device is rotating | the phone is being rotated | the device starts to rotate | the camera is turned""",
    "walking": """someone walks with the device | the walking starts | the device is carried by someone walking | I walk
the person with the device walks | someone is walking with the phone | the camera is carried by someone walking""",
    "dropped": """the device is dropped | the device falls | the camera is dropped | someone drops the device
the phone falls down | the device gets dropped | the phone is dropped | I drop the phone""",
    ANY: "the device moves | the device is moved | the camera is not still | the phone is moved"}
_VISIBLE = """{a_obj} is visible | {a_obj} is in view | you see {a_obj} | there is {a_obj} | {a_obj} can be seen
{the_obj} is visible | {the_obj} is in the picture | {a_obj} is in the picture | {the_obj} is there"""
_PLACE = """{the_obj} is {place} | {the_obj} is {place} of the picture | you see {the_obj} {place} | {the_obj} gets {place}
{a_obj} is {place} | {the_obj} can be seen {place}"""
_MOVES = """{the_obj} moves {way} | {the_obj} is moving {way} | {the_obj} goes {way} | {the_obj} is going {way}
you see {the_obj} move {way} | {the_obj} travels {way}"""
_EVENT = "{the_obj} {verb} | {the_obj} {verb} | {the_obj} {verb} | {a_obj} {verb} | {the_obj} {verb} in the picture"
_ASKS = split_block("""Tell me when {c}. | Let me know when {c}. | Alert me when {c}. | Notify me if {c}. | Tell me if {c}
Say so when {c}. | Warn me when {c}. | Please tell me when {c} | tell me whenever {c} | Let me know if {c}
When {c}, tell me. | Ping me when {c} | Could you tell me when {c}? | Tell me as soon as {c}. | Tell me every time {c}""")
_WAY = {"left": "to the left", "right": "to the right", "up": "up", "down": "down", ANY: ""}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule waits for. `family`: sound, event, device, visible, place or moving; `what`: which sound, event, motion,
    place or direction; the rest narrows it."""

    family: str
    what: str = ANY
    color: str = ANY
    shape: str = ANY
    pitch: str = ANY

    @property
    def modality(self) -> str:
        return {"sound": "audio", "device": "imu"}.get(self.family, "video")

    def text(self, rng: random.Random, *, noise: float = 0.0) -> str:
        """One way to say it, such as "the red circle stops"."""
        if self.family == "device":
            said = _pick(rng, _DEVICE[self.what])
        elif self.family == "sound":
            said = _pick(rng, _ANY_SOUND) if self.what == ANY else self._sound(rng)
        else:
            noun = self.shape or rng.choice(("object", "object", "thing", "shape"))
            name = f"{self.color} {noun}".strip()
            article = "an" if name[0] in "aeiou" else "a"
            one_of_many = not (self.color and self.shape) and rng.random() < 0.6
            the = f"{rng.choice((article, 'any'))} {name}" if one_of_many else f"the {name}"
            form = {"event": _EVENT, "visible": _VISIBLE, "place": _PLACE, "moving": _MOVES}[self.family]
            place = "in the middle" if self.what == "middle" else f"at the {self.what}"
            said = _pick(rng, form).format(the_obj=the, a_obj=f"{article} {name}", place=place, way=_WAY.get(self.what, ""),
                                     verb=_pick(rng, _VERBS[self.what]) if self.family == "event" else "")
        return vary(rng, " ".join(said.split()), noise=noise).strip(" ?.!")

    def _sound(self, rng: random.Random) -> str:
        name = f"{self.pitch} {self.what}".strip()
        clicks = self.what == "clicks"
        verb = _pick(rng, _SOUND_VERBS.get(self.what, _SOUND_VERBS[ANY]))
        a_sound = name if clicks else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
        return _pick(rng, _SOUND_FORMS).format(the_sound=f"the {name}", a_sound=a_sound, verb=verb,
                                               be="are" if clicks else "is")


def _pick(rng: random.Random, block: str) -> str:
    return rng.choice(split_block(block))


def asked(condition: Condition, rng: random.Random, *, noise: float = 0.0) -> str:
    """A rule as someone would give it: "Tell me when the red circle stops."."""
    return rng.choice(_ASKS).format(c=condition.text(rng, noise=noise))


# --- what is true ----------------------------------------------------------------------------------------------------

def judge(scene: Scene, condition: Condition, low_s: float, high_s: float) -> bool | None:
    """Whether a condition holds in [low_s, high_s); None where the window leaves room for doubt."""
    if condition.family == "sound":
        found = [_lasts(s.t0_s, s.t1_s, low_s, high_s) for s in scene.sounds
                 if condition.what in (ANY, s.kind) and condition.pitch in (ANY, s.pitch)]
    elif condition.family == "device":
        found = [_lasts(m.t0_s, m.t1_s, low_s, high_s) for m in scene.motions if condition.what in (ANY, m.kind)]
    else:
        found = [_judge_thing(t, condition, low_s, high_s) for t in scene.things if _fits(t, condition)]
    return True if True in found else None if None in found else False


def _lasts(t0_s: float, t1_s: float, low_s: float, high_s: float) -> bool | None:
    overlap = min(t1_s, high_s) - max(t0_s, low_s)
    if overlap <= 0:
        return False
    return True if overlap >= FAINT_S else None


def _fits(thing: Thing, condition: Condition) -> bool:
    colors = {c for c, _ in thing.names()}
    return condition.shape in (ANY, thing.shape) and (condition.color == ANY or condition.color in colors)


def _judge_thing(thing: Thing, condition: Condition, low_s: float, high_s: float) -> bool | None:
    in_doubt = thing.recolor and condition.color and thing.recolor[0] < high_s  # by which of its colours is it called?
    if condition.family == "event":
        here = any(e.kind == condition.what and low_s <= e.t_s < high_s for e in thing.events)
        if not here:
            return False
        first = condition.what == "changes colour" and condition.color == thing.color
        return None if in_doubt and not first else True
    seen = _lasts(thing.appear_s, thing.vanish_s, low_s, high_s)
    if not seen:
        return seen
    if in_doubt:
        return None
    if condition.family == "visible":
        return True
    if condition.family == "moving":
        way = heading(thing, low_s, high_s)
        return None if way is None else way != "still" if condition.what == ANY else way == condition.what
    end_s = min(high_s, thing.vanish_s) - 1e-3
    (x0, x1), (y0, y1) = thing.at(np.array([max(low_s, thing.appear_s), end_s]))
    if min(abs(v - b) for v in (x0, x1, y0, y1) for b in (1 / 3, 2 / 3)) < EDGE or place_of(x0, y0) != place_of(x1, y1):
        near = {place_of(float(np.clip(x + dx, 0, 0.999)), float(np.clip(y + dy, 0, 0.999)))
                for x, y in ((x0, y0), (x1, y1)) for dx in (-EDGE, EDGE) for dy in (-EDGE, EDGE)}
        return None if condition.what in near else False
    return place_of(x1, y1) == condition.what


# --- drawing some ----------------------------------------------------------------------------------------------------

def conditions(scene: Scene, rng: random.Random, present: Sequence[str] = ("video", "audio", "imu")) -> list[Condition]:
    """Conditions worth asking of a scene: what happens in it at some time, and what is near to that but does not."""
    found: list[Condition] = []
    if "video" in present:
        for thing in scene.things:
            name = rng.choice([(thing.color, thing.shape)] * 4 + [(ANY, thing.shape), (thing.color, ANY), (ANY, ANY)])
            found += [Condition("event", e.kind, *name) for e in thing.events]
            found.append(Condition("event", rng.choice(VISUAL_EVENTS), *name))
            found.append(Condition("visible", ANY, *name))
            full = (thing.color, thing.shape)
            end_s = min(scene.duration_s, thing.vanish_s) - 1e-3
            place = place_of(*(float(v) for v in thing.at(np.array(end_s))))
            ways = [ANY, *DIRECTIONS, *([thing.direction] * 2 if thing.direction in DIRECTIONS else [])]
            found += [Condition("place", rng.choice([place, rng.choice(PLACES)]), *full),
                      Condition("moving", rng.choice(ways), *full)]
        wrong = (rng.choice(COLORS), rng.choice(SHAPES))
        found += [Condition("event", rng.choice(VISUAL_EVENTS), *wrong), Condition("visible", ANY, *wrong)]
    if "audio" in present:
        for sound in scene.sounds:
            pitch = sound.pitch if sound.kind in PITCHED and rng.random() < 0.25 else ANY
            found.append(Condition("sound", sound.kind, pitch=pitch))
            if pitch:
                found.append(Condition("sound", sound.kind, pitch=rng.choice(PITCHES)))
        found += [Condition("sound", rng.choice(SOUNDS)), Condition("sound", rng.choice((ANY, *SOUNDS)))]
    if "imu" in present:
        found += [Condition("device", m.kind) for m in scene.motions]
        found += [Condition("device", rng.choice(DEVICE_MOTIONS)), Condition("device", rng.choice((ANY, *DEVICE_MOTIONS)))]
    return list(dict.fromkeys(found))


def rule_questions(scene: Scene, rng: random.Random, *, count: int = 4, noise: float = 1.0,
                   present: Sequence[str] = ("video", "audio", "imu")) -> list[Question]:
    """At most `count` questions about the last window of a scene, of type `rule_now`.

    As many yes as no, in each of two groups: what happens (sounds, events, motions) and what holds (seen, at a place,
    moving); a scene in whose last window nothing happens gives fewer. Cut scenes with `eventful` to have enough.
    """
    high_s = scene.duration_s
    low_s = math.ceil(high_s) - 1.0
    sorted_by: dict[tuple[bool, bool], list[Condition]] = {(h, y): [] for h in (True, False) for y in (True, False)}
    for condition in conditions(scene, rng, present):
        true = judge(scene, condition, low_s, high_s)
        if true is not None:
            sorted_by[condition.family in ("sound", "event", "device"), true].append(condition)
    rows: list[tuple[Condition, bool]] = []
    for happens in (True, True, False):  # two of what happens for one of what holds
        yes, no = sorted_by[happens, True], sorted_by[happens, False]
        has_yes = bool(yes)  # a "no" is asked less often where no "yes" could have been
        for _ in range(max(1, count // 3)):
            wanted = rng.random() < 0.5
            pool = yes if wanted else no if has_yes or rng.random() < 0.4 else []
            if pool:
                rows.append((pool.pop(rng.randrange(len(pool))), wanted))
    rng.shuffle(rows)
    return [_worded(scene, c, yes, low_s, high_s, rng, noise) for c, yes in rows[:count]]


def _worded(scene: Scene, condition: Condition, yes: bool, low_s: float, high_s: float, rng: random.Random,
            noise: float) -> Question:
    question = now_question(asked(condition, rng, noise=noise * rng.choice((0.0, 0.5))))
    accept = ("yes it is", "yes it does") if yes else ("no it is not", "no it does not")
    latest = (Evidence(low_s, math.ceil(high_s) * 1.0, condition.modality),)
    return Question(KIND, question, "yes" if yes else "no", accept, latest)


# --- scenes that end where something happens -------------------------------------------------------------------------

def eventful(scene: Scene, rng: random.Random, seconds: int) -> Scene:
    """`seconds` of a longer scene that end with a window in which, half of the time, something happens."""
    ends = range(seconds, int(scene.duration_s) + 1)
    busy = [k for k in ends if _happens(scene, k - 1.0, float(k))]
    end = rng.choice(busy if busy and rng.random() < 0.6 else list(ends))
    return excerpt(scene, end - seconds, end)


def _happens(scene: Scene, low_s: float, high_s: float) -> bool:
    moments = [e.t_s for t in scene.things for e in t.events]
    moments += [s.t0_s for s in scene.sounds] + [m.t0_s for m in scene.motions]
    return any(low_s <= t < high_s for t in moments)


def excerpt(scene: Scene, start_s: float, end_s: float) -> Scene:
    """[start_s, end_s) of a scene, as a scene of its own that begins at 0."""
    things = [t for t in scene.things if t.vanish_s > start_s and t.appear_s < end_s]
    place = {id(t): i for i, t in enumerate(things)}
    old = {i: place.get(id(t)) for i, t in enumerate(scene.things)}
    length = end_s - start_s
    return replace(
        scene, duration_s=length, things=[_cut_thing(t, start_s, length, old) for t in things],
        sounds=[Sound(s.kind, s.pitch, max(0.0, s.t0_s - start_s), s.t1_s - start_s, s.variant) for s in scene.sounds
                if s.t1_s > start_s + 0.05 and s.t0_s < end_s],
        motions=[DeviceMotion(m.kind, max(0.0, m.t0_s - start_s), m.t1_s - start_s) for m in scene.motions
                 if m.t1_s > start_s + 0.05 and m.t0_s < end_s])


def _cut_thing(thing: Thing, start_s: float, length: float, old: dict[int, int | None]) -> Thing:
    x, y = (float(v) for v in thing.at(np.array(start_s)))
    later = [(t - start_s, px, py) for t, px, py in zip(thing.times, thing.xs, thing.ys, strict=True) if t > start_s]
    path = [(0.0, x, y), *later]
    gone = thing.recolor is not None and thing.recolor[0] <= start_s
    recolor = (thing.recolor[0] - start_s, thing.recolor[1]) if thing.recolor and not gone else None
    recolor = recolor if recolor and recolor[0] < length else None
    events = [Event(e.kind, e.t_s - start_s, None if e.other is None else old[e.other]) for e in thing.events
              if start_s <= e.t_s < start_s + length]
    legs = {heading(thing, start_s + a, start_s + a + 0.6) for a in np.arange(0, max(length - 0.6, 0.1), 0.5)} - {None}
    direction = thing.direction if legs == {thing.direction} else ""
    return replace(
        thing, color=thing.recolor[1] if gone else thing.color, recolor=recolor, events=events, direction=direction,
        appear_s=thing.appear_s - start_s if thing.appear_s > start_s else -1e-6, vanish_s=thing.vanish_s - start_s,
        times=[p[0] for p in path], xs=[p[1] for p in path], ys=[p[2] for p in path],
        angle=thing.angle + thing.spin * start_s)

