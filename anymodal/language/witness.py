"""What the newest window's tokens tell of a condition: that a sound is heard, the device moves, a thing stops.

Soft tokens of the default bundle are trained to say words (`anymodal.training.words`), some of them what happens to one
thing. A rule that names nothing else, "the red circle stops", is told by these more surely than by the language model, and
for nothing. What it says must be all known: with any other word ("no bell", "at the left") the language model is asked. The
words, and from which likelihood on they count, are those of the bundle's `search`.
Shapes: N tokens, V words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anymodal.config_words import SearchSpec
from anymodal.errors import ConfigError
from anymodal.language.finder import Finder
from anymodal.language.named import THING, told_of

_WORD = re.compile(r"[a-z]+")
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
        for kind, enough in spec.tells.items():
            if enough >= 1:
                raise ConfigError(f"search.tells.{kind} is {enough:g}: nothing is as likely as that",
                                  fix=f"set search.tells.{kind} to a likelihood below 1")
        self._kind = {finder.number(word): kind for word, kind in finder.kind.items()}
        self.reading = lru_cache(maxsize=4096)(self._reading)

    @classmethod
    def of(cls, spec: SearchSpec | None, finder: Finder | None) -> Witness | None:
        """A bundle's; None where its tokens say no words, or none that `tells` names."""
        return None if spec is None or finder is None or not spec.tells else cls(spec, finder)

    def _reading(self, condition: str) -> Reading | None:
        """None: the language model has to be asked."""
        text = self._finder.plain(condition)
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
        if not found or found.keys() - {*THING} or any(len(words) > 1 for words in found.values()):
            return None
        thing = [i for words in found.values() for i in words]
        if len(told := told_of(self._spec, self._finder, kind, thing)) < len(thing):
            return None  # tokens that say what happens do not say all of the thing
        return Reading(kind, tuple(happens), told)

    def chance(self, reading: Reading, said: np.ndarray) -> tuple[float, int]:
        """How likely it holds in a window whose tokens say each word so likely, (N, V); and which token says so most."""
        if not len(said):
            return 0.0, 0
        chances = said[:, [*reading.happens, *reading.thing]].min(1)
        token, enough = int(chances.argmax()), self._spec.tells[reading.kind]
        chance = float(chances[token])
        return (0.5 * chance / enough if chance < enough else 0.5 + 0.5 * (chance - enough) / (1 - enough)), token
