"""Facts about what a depth and a thermal camera show: which thing is nearest or hottest, and what gets warmer or colder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from anymodal.playground.facts import CANNOT_TELL, Fact, Truth, with_article
from anymodal.playground.fields import fields_of, hottest, nearest
from anymodal.playground.world import Scene, Thing

Found = Callable[[Scene, int], Thing | None]


def _first(truth: Truth, kind: str, modality: str, find: Found) -> Iterator[Fact]:
    """Which thing it is in one second, at the end, and in all of the clip if it is always the same."""
    scene = truth.scene
    seconds = range(int(scene.duration_s))
    found = {k: find(scene, k) for k in seconds}
    shown = {k for k in seconds for t in scene.things if t.appear_s < k + 1.0 and t.vanish_s > k}
    usual = usual_shape(found.values())
    for k, thing in found.items():
        if thing is not None:
            telling = thing.shape != usual
            yield _named(kind, f" at {k} s", thing, truth.moment(k, modality), telling)
            if k == len(seconds) - 1:
                yield _named(kind, " now", thing, truth.moment(k, modality))
    always = {id(found[k]) for k in shown}
    if len(always) == 1 and (thing := found[min(shown)]) is not None:
        yield _named(kind, "", thing, truth.span(min(shown), max(shown) + 1.0, modality))


def usual_shape(found: Iterable[Thing | None]) -> str:
    """The shape found in most seconds."""
    return next((shape for shape, _ in Counter(t.shape for t in found if t is not None).most_common(1)), "")


def _named(kind: str, when: str, thing: Thing, evidence: tuple, telling: bool = False) -> Fact:
    shape = with_article(thing.shape)
    accept = (shape, f"the {thing.shape}", f"{thing.color} {thing.shape}", f"the {thing.color} {thing.shape}")
    return Fact(kind, {"when": when}, thing.shape, accept, evidence, telling)


def depth(truth: Truth) -> Iterator[Fact]:
    yield from _first(truth, "nearest", "depth", nearest)


def thermal(truth: Truth) -> Iterator[Fact]:
    scene = truth.scene
    yield from _first(truth, "hottest", "thermal", hottest)
    for thing, change in zip(scene.things, fields_of(scene).changes, strict=True):
        if change is None or sum(t.shape == thing.shape for t in scene.things) > 1:
            continue
        earlier = [h for h in truth.happenings if change.t_s - 1.5 <= h.t_s < change.t_s]
        after = f" after {truth.rng.choice(earlier).past}" if earlier and truth.rng.random() < 0.5 else ""
        name = truth.rng.choice((thing.shape, thing.shape, f"{thing.color} {thing.shape}")) if not thing.recolor \
            else thing.shape
        word = change.word
        accept = (f"it got {word}", f"it is {word}", f"{word} than before")
        yield Fact("warmer", {"obj": name, "after": after}, word, accept, truth.moment(change.t_s, "thermal"),
                   steps=(int(change.t_s), f"{thing.shape} {word}"))


def unseen(truth: Truth) -> Iterator[Fact]:
    """What may be asked without such a camera."""
    if "depth" not in truth.present:
        yield Fact("nearest", {"when": truth.rng.choice(("", " now"))}, CANNOT_TELL)
    if "thermal" not in truth.present:
        yield Fact("hottest", {"when": truth.rng.choice(("", " now"))}, CANNOT_TELL)
        for thing in truth.scene.things[:1]:
            yield Fact("warmer", {"obj": thing.shape, "after": ""}, CANNOT_TELL)


# each with the modalities that it needs
GENERATORS = ((depth, frozenset({"depth"})), (thermal, frozenset({"thermal"})))
