"""What a question names: a thing, what happens to it or is heard, in order, and whether it asks of before or after.

The words, and other words for them, are those of the bundle's `search`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from anymodal.config import SearchSpec
from anymodal.language.finder import Finder

THING = ("color", "shape", "size")  # kinds of words that a thing is named by
LONE = ("sound", "motion")  # what happens to no thing
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Happening:
    """Of a kind: any of `words`, each some numbers that are said together; to a thing. begins: its beginning is meant."""

    kind: str
    words: tuple[tuple[int, ...], ...]
    thing: tuple[int, ...] = ()

    @property
    def begins(self) -> bool:
        return self.kind in LONE


@dataclass(frozen=True, slots=True)
class Named:
    """side: -1 where what was before is asked about, 1 for after; since: the happening after which another one is asked
    about; kinds: of all words."""

    happenings: tuple[Happening, ...]
    thing: tuple[int, ...]
    kinds: frozenset[str]
    side: int = 0
    since: int | None = None

    @property
    def happening_kinds(self) -> set[str]:
        return {h.kind for h in self.happenings}


class Names:
    def __init__(self, spec: SearchSpec, finder: Finder) -> None:
        self._spec, self._finder = spec, finder
        self._phrases = sorted((k for k in spec.synonyms if " " in k), key=len, reverse=True)
        self._sides = {w: -1 for w in spec.before} | {w: 1 for w in spec.after}
        self._values = {kind: [frozenset(finder.number(w) for w in v.split() if w in finder.kind) for v in values]
                        for kind, values in spec.words.items()}

    def of(self, question: str) -> Named:
        text = question.lower()
        for phrase in self._phrases:
            text = text.replace(phrase, self._spec.synonyms[phrase])
        found: list[Happening] = []
        thing: list[int] = []
        any_event = False
        kinds: set[str] = set()
        side, after, since = 0, False, None
        for word in _WORD.findall(text):
            if word in self._sides:
                side, after = side or self._sides[word], word == "after"
                continue
            number = self._finder.known(word, typos=True)
            if number is None:
                any_event |= word in self._spec.happens or bool(thing) and word in ("do", "does", "did")
                continue
            kind = self._finder.kind[self._finder.lexicon[number]]
            if kind == "shape" and found and found[-1].kind == "sound" and word in self._spec.plain:
                continue  # "the bell rings"
            kinds.add(kind)
            if kind in THING:
                thing.append(number)
            elif kind in self._spec.tells:
                if found and found[-1].kind == kind and not thing:
                    found[-1] = self._with(found[-1], number)
                else:
                    found.append(Happening(kind, ((number,),), () if kind in LONE else self._of(kind, thing)))
                    since = len(found) - 1 if after and len(found) > 1 else since
                    thing = thing if kind in LONE else []
                after = False
        if thing and found and not found[-1].thing and found[-1].kind not in LONE:  # "the bouncing of the red star"
            found[-1], thing = replace(found[-1], thing=self._of(found[-1].kind, thing)), []
        if any_event and thing and not found and "event" in self._spec.points:
            found.append(Happening("event", tuple(tuple(v) for v in self._values["event"]), tuple(thing)))
            thing = []
        first = next((h.thing for h in found if h.thing), ())
        return Named(tuple(found), first or tuple(dict.fromkeys(thing)), frozenset(kinds), side if len(found) <= 1 else 0, since)

    def _of(self, kind: str, thing: list[int]) -> tuple[int, ...]:
        """What tokens that say a kind's words say of a thing: of phrases with that kind, the other fields."""
        fields = {f for m in self._spec.phrases for group in self._spec.groups(m) for p in group if f"{{{kind}}}" in p
                  for f in re.findall(r"{(\w+)}", p)}
        told = [n for n in thing if self._finder.kind[self._finder.lexicon[n]] in fields]
        return tuple(told or thing)

    def _with(self, last: Happening, number: int) -> Happening:
        """One more word: "rising" of "chirp", or another that it may be, "warmer or colder"."""
        together = {*last.words[-1], number}
        if any(together <= value for value in self._values[last.kind]):
            return replace(last, words=(*last.words[:-1], tuple(sorted(together))))
        return replace(last, words=(*last.words, (number,)))
