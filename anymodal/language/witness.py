"""What the newest window's tokens tell of a condition: that a sound is heard, the device moves, a thing stops.

Soft tokens of the default bundle are trained to say words (`anymodal.training.words`), some of them what happens to one
thing. A rule that names nothing else, "the red circle stops", is told by these more surely than by the language model, and
for nothing. What it says must be all known: with any other word ("no bell", "at the left") the language model is asked. The
words, and from which share on they count, are those of the bundle's `search`.
Shapes: N tokens, V words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anymodal.config import SearchSpec
from anymodal.errors import ConfigError
from anymodal.language.finder import Finder

THERE = 0.06  # share from which on a token says of a thing that it is there
_WORD = re.compile(r"[a-z]+")
_THINGS = ("color", "shape")  # what happens is told of one
_OTHERS = frozenset({"object", "something", "thing", "shape", "picture", "person", "someone"})  # that may move, too
_LONE = {"sound": ("pitch",), "motion": ()}  # of none: kinds that stand alone, or with these


@dataclass(frozen=True, slots=True)
class Reading:
    """A condition as words, by number: of what `kind` it is, what happens, and to which thing."""

    kind: str
    happens: tuple[int, ...]
    thing: tuple[int, ...] = ()


class Witness:
    """Reads conditions, and what tokens say of them."""

    def __init__(self, spec: SearchSpec, finder: Finder) -> None:
        self._spec, self._finder = spec, finder
        for kind in spec.tells.keys() & _LONE.keys():
            if spec.tells[kind] >= 1:
                raise ConfigError(f"search.tells.{kind} is {spec.tells[kind]:g}: no token says more than all of it",
                                  fix=f"set search.tells.{kind} to a share below 1")
        self._kind = {finder.number(word): kind for kind, values in spec.words.items() for value in values
                      for word in value.split()}
        self._phrases = sorted((k for k in spec.synonyms if " " in k), key=len, reverse=True)
        self.reading = lru_cache(maxsize=4096)(self._reading)

    @classmethod
    def of(cls, spec: SearchSpec | None, finder: Finder | None) -> Witness | None:
        """A bundle's; None where its tokens say no words, or none that `tells` names."""
        return None if spec is None or finder is None or not spec.tells else cls(spec, finder)

    def _reading(self, condition: str) -> Reading | None:
        """None: the language model has to be asked."""
        text = condition.lower()
        for phrase in self._phrases:
            text = text.replace(phrase, self._spec.synonyms[phrase])
        found: dict[str, set[int]] = {}
        words = _WORD.findall(text)
        numbers = {word: self._finder.known(word) for word in words}
        sounds = any(n is not None and self._kind[n] == "sound" for n in numbers.values())
        for word, number in numbers.items():
            plain = word in self._spec.plain
            if number is None and not plain:
                return None
            if number is not None and not (plain and sounds):  # "rings" is what a bell does, and a shape elsewhere
                found.setdefault(self._kind[number], set()).add(number)
        named = any(self._spec.synonyms.get(w, w) == "device" for w in words)
        if "motion" in found and not named and not _OTHERS.isdisjoint(words):
            return None
        kinds = [kind for kind in self._spec.tells if kind in found]
        if len(kinds) != 1:
            return None
        kind, happens = kinds[0], found.pop(kinds[0])
        if not any(happens <= {self._finder.number(w) for w in value.split()} for value in self._spec.words[kind]):
            return None  # several at once
        if kind in _LONE:
            with_it = found.keys() & {*_LONE[kind]}
            ok = not found.keys() - with_it
            return Reading(kind, tuple(sorted(happens.union(*(found[k] for k in with_it))))) if ok else None
        if not found or found.keys() - {*_THINGS} or any(len(words) > 1 for words in found.values()):
            return None
        return Reading(kind, tuple(happens), tuple(i for words in found.values() for i in words))

    def chance(self, reading: Reading, said: np.ndarray) -> tuple[float, int]:
        """How likely it holds in a window whose tokens say so much of each word, (N, V); and which token says so most."""
        if not len(said):
            return 0.0, 0
        happens = said[:, list(reading.happens)].min(1)
        enough = self._spec.tells[reading.kind]
        most = 1.0
        if reading.thing:  # as much as the thing itself, which is there
            thing = said[:, list(reading.thing)].min(1)
            happens, most = np.where(thing >= THERE, happens / np.maximum(thing, 1e-6), 0.0), 2 * enough
        token = int(happens.argmax())
        score = min(float(happens[token]), most)
        return (0.5 * score / enough if score < enough else 0.5 + 0.5 * (score - enough) / (most - enough)), token
