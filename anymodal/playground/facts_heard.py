"""Facts across the senses: order, sounds and device motion, statements, descriptions, and what cannot be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from anymodal.playground.facts import (
    A_SOUND,
    CANNOT_TELL,
    DEVICE_VERBS,
    DOING,
    VERBS,
    WAY,
    Fact,
    Truth,
    when,
    yes_or_no,
)
from anymodal.playground.facts_seen import moving, resting_place
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
    heading,
    place_of,
)

# a sound or a motion, whichever, where there is one
_ANY_SOUND = {"past": "there was a sound", "base": "something sound", "ing": "a sound being heard"}
_ANY_MOTION = {"past": "the device moved", "base": "the device move", "ing": "the device moving"}

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
        times = ((int(a.t_s), int(b.t_s)),)
        yield Fact("order", slots, first.ing, (first.past, *([] if same else first.short[:3])), evidence, steps=times)
        yield Fact("order_yn", slots, *yes_or_no(a is first), evidence, steps=times)


def _sounds(truth: Truth) -> Iterator[Fact]:
    sounds = truth.scene.sounds
    heard = [(s, (s.kind, f"the {s.kind}", A_SOUND[s.kind].replace(s.kind, f"{s.pitch} {s.kind}"))) for s in sounds]
    if not sounds:
        whole = truth.span(0.0, truth.scene.duration_s, "audio")
        yield Fact("sound_what", {}, "silence", ("nothing", "no sound"), whole)
    elif len({s.kind for s in sounds}) == 1:
        sound, accept = heard[0]
        yield Fact("sound_what", {}, A_SOUND[sound.kind], accept, truth.moment(sound.t0_s, "audio"))
    else:
        for kind, (sound, accept) in (("sound_first", heard[0]), ("sound_last", heard[-1])):
            yield Fact(kind, {}, A_SOUND[sound.kind], accept, truth.moment(sound.t0_s, "audio"), steps=(int(sound.t0_s),))
    counts = Counter(s.kind for s in sounds)
    for sound in sounds:
        if counts[sound.kind] > 1:
            continue
        name = "click train" if sound.kind == "clicks" else sound.kind
        if sound.kind in PITCHED:
            yield Fact("pitch", {"sound": name}, sound.pitch, (f"it was {sound.pitch}",),
                       truth.moment(sound.t0_s, "audio"))
        h = truth.sound(sound.kind, sound.t0_s)
        yield when("sound_when", {"sound": name, "past": h.past, "base": h.base, "ing": h.ing}, sound.t0_s, truth, "audio")
        if len(sounds) == 1:
            yield when("sound_when", {"sound": "sound", **_ANY_SOUND}, sound.t0_s, truth, "audio")


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
            h = truth.sound(sound.kind, sound.t0_s)
            slots = {"obj": name, "sound": sound.kind, "a_sound": A_SOUND[sound.kind], "past": h.past, "ing": h.ing}
            shown = f"{thing.color_at(sound.t0_s)} {thing.shape}" if sound in inside else "nothing"
            yield Fact("sound_while_visible", slots, *yes_or_no(sound in inside), truth.moment(sound.t0_s, "audio"),
                       steps=(int(sound.t0_s), shown))
        if len({s.kind for s in inside}) == 1:
            sound = inside[0]
            yield Fact("sound_during", {"obj": name}, A_SOUND[sound.kind], (sound.kind, f"the {sound.kind}"),
                       truth.moment(sound.t0_s, "audio"), steps=(int(sound.t0_s),))
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
        yield Fact("device_motion", {}, kind, (f"it was {kind}", f"it was {DOING[kind]}", DOING[kind]),
                   truth.span(motions[0].t0_s, motions[0].t1_s, "imu"))
    for h in truth.happenings:
        if h.modality == "imu":
            yield when("device_when", {"past": h.past, "base": h.base, "ing": h.ing}, h.t_s, truth, "imu")
            if len(motions) == 1:
                yield when("device_when", _ANY_MOTION, h.t_s, truth, "imu")


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
                yield Fact("yn_color", {"obj": name, "color": color}, *yes_or_no(right), seen,
                           steps=(f"{thing.color}, {color}",))
            name = truth.refer(thing, hide="size")
            if name:
                size, right = pick(thing.size, SIZES)
                yield Fact("yn_size", {"obj": name, "size": size}, *yes_or_no(right), seen,
                           steps=(f"{thing.size}, {size}",))
            spot = resting_place(thing, scene.duration_s)
            if name and spot and thing.vanish_s > scene.duration_s:
                place, right = pick(spot[0], PLACES)
                now = truth.span(scene.duration_s - 1e-3, scene.duration_s, "video")
                where = "in the middle" if place == "middle" else f"at the {place}"
                yield Fact("yn_place", {"obj": name, "place": where}, *yes_or_no(right), now,
                           steps=(int(scene.duration_s - 1e-3), f"{spot[0]}, {place}"))
            if name and thing.direction in DIRECTIONS:
                way, right = pick(thing.direction, tuple(DIRECTIONS))
                yield Fact("yn_motion", {"obj": name, "direction": WAY[way]}, *yes_or_no(right), seen,
                           steps=(*moving(truth, thing), f"{thing.direction}, {way}"))
            kinds = {e.kind for e in thing.events}
            kind = rng.choice(sorted(kinds)) if kinds and rng.random() < 0.5 else rng.choice(VISUAL_EVENTS)
            here = [e for e in thing.events if e.kind == kind]
            forms = {form: f"the {thing.color} {thing.shape} {verb}"
                     for form, verb in zip(("past", "base", "ing"), VERBS[kind], strict=True)}
            yield Fact("yn_event", forms, *yes_or_no(bool(here)),
                       truth.moment(here[0].t_s, "video") if here else seen,
                       steps=(", ".join(dict.fromkeys(e.kind for e in thing.events)) or "nothing",))
    if "audio" in truth.present:
        kinds = sorted({s.kind for s in scene.sounds})
        kind = rng.choice(kinds) if kinds and rng.random() < 0.5 else rng.choice(SOUNDS)
        here = [s for s in scene.sounds if s.kind == kind]
        yield Fact("yn_sound", {"a_sound": A_SOUND[kind]}, *yes_or_no(bool(here)),
                   truth.moment(here[0].t0_s, "audio") if here else truth.span(0, scene.duration_s, "audio"))
    if "imu" in truth.present:
        kinds = sorted({m.kind for m in scene.motions})
        kind = rng.choice(kinds) if kinds and rng.random() < 0.5 else rng.choice(DEVICE_MOTIONS)
        here = [m for m in scene.motions if m.kind == kind]
        yield Fact("yn_device", {"doing": DOING[kind]}, *yes_or_no(bool(here)),
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

def unanswerable(truth: Truth) -> Iterator[Fact]:
    rng = truth.rng
    if "video" in truth.present:
        for name in truth.absent():
            kind = rng.choice(("color", "size", "place_now", "place_first", "motion", "event_kind", "color_before", "shape",
                               "event_when"))
            if (kind == "color" and name.split()[0] in COLORS) or (kind == "shape" and name.split()[-1] in SHAPES):
                continue
            verb = VERBS[rng.choice(VISUAL_EVENTS)]
            slots = {"obj": name, **{f: f"the {name} {v}" for f, v in zip(("past", "base", "ing"), verb, strict=True)}}
            yield Fact(kind, slots, CANNOT_TELL)
        for thing in truth.scene.things:
            kinds = {e.kind for e in thing.events}
            kind = rng.choice([k for k in VISUAL_EVENTS if k not in kinds])
            slots = {f: f"the {thing.color} {thing.shape} {v}" for f, v in zip(("past", "base", "ing"), VERBS[kind],
                                                                          strict=True)}
            yield Fact("event_when", slots, CANNOT_TELL)
    elif rng.random() < 0.5:
        name = f"{rng.choice(COLORS)} {rng.choice(SHAPES)}"
        yield Fact(rng.choice(("size", "place_now", "motion", "event_kind")), {"obj": name}, CANNOT_TELL)
        yield Fact("color", {"obj": rng.choice(SHAPES)}, CANNOT_TELL)
        yield Fact("count", {"objs": "objects"}, CANNOT_TELL)
    heard = {s.kind for s in truth.scene.sounds} if "audio" in truth.present else set()
    if unheard := [s for s in SOUNDS if s not in heard]:
        sound = rng.choice(unheard)
        h = truth.sound(sound, 0.0)
        name = "click train" if sound == "clicks" else sound
        yield Fact("sound_when", {"sound": name, "past": h.past, "base": h.base, "ing": h.ing}, CANNOT_TELL)
        if sound in PITCHED:
            yield Fact("pitch", {"sound": name}, CANNOT_TELL)
    if "audio" not in truth.present:
        yield Fact("sound_what", {}, CANNOT_TELL)
    moved = {m.kind for m in truth.scene.motions} if "imu" in truth.present else set()
    unmoved = [m for m in DEVICE_MOTIONS if m not in moved]
    if unmoved:
        verbs = DEVICE_VERBS[rng.choice(unmoved)]
        yield Fact("device_when", dict(zip(("past", "base", "ing"), verbs, strict=True)), CANNOT_TELL)
    if "imu" not in truth.present:
        yield Fact("device_motion", {}, CANNOT_TELL)


# each with the modalities that it needs
GENERATORS = ((_order, frozenset()), (_sounds, frozenset({"audio"})), (_sound_and_sight, frozenset({"video", "audio"})),
              (_device, frozenset({"imu"})), (_statements, frozenset()), (_caption, frozenset()),
              (_describe_at, frozenset()), (unanswerable, frozenset()))
