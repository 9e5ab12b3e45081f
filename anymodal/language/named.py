"""What a question names: a thing, and what happens, in order; and whether it asks of the time before or after.

The words, and other words for them, are those of the bundle's `search`; what a question asks for without naming it ("what
did the star do?") is in its `point`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial

from anymodal.config import PointSpec, SearchSpec
from anymodal.language.finder import Finder

THING = ("color", "shape", "size")  # kinds of words that a thing is named by
LONE = ("sound", "motion")  # kinds of what happens to no thing
_WORD = re.compile(r"[a-z]+")
_DOES = frozenset({"do", "does", "did"})  # "what did the star do", not "do you see"


@dataclass(frozen=True, slots=True)
class Happening:
    """Any of `words` of a kind, each some numbers that a token says together, of a thing."""

    kind: str
    words: tuple[tuple[int, ...], ...]
    thing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """`thing`: the first one named, as numbers of words. `kinds`: of all words. `side`: -1 where a question asks of the
    time before the one thing that happens, 1 for after it. `since`: the place, among what happens, of that after which the
    rest is asked about."""

    happenings: tuple[Happening, ...] = ()
    thing: tuple[int, ...] = ()
    kinds: frozenset[str] = frozenset()
    side: int = 0
    since: int | None = None

    def happens(self, kind: str) -> bool:
        """Is it of what happens of that kind that the question asks?"""
        return any(h.kind == kind for h in self.happenings)


class Names:
    """Reads questions."""

    def __init__(self, search: SearchSpec, point: PointSpec, finder: Finder) -> None:
        self._search, self._point, self._finder = search, point, finder
        self._phrases = sorted((k for k in search.synonyms if " " in k), key=len, reverse=True)
        self._sides = {w: -1 for w in point.before} | {w: 1 for w in point.after}
        self._verbs = {n for word in search.plain if (n := finder.known(word)) is not None}  # "the bell rings"
        self._told_of = partial(told_of, search, finder)
        self._values = {kind: [tuple(map(finder.number, value.split())) for value in values]
                        for kind, values in search.words.items()}

    def of(self, question: str) -> Named:
        text = question.lower()
        for phrase in self._phrases:
            text = text.replace(phrase, self._search.synonyms[phrase])
        found: list[Happening] = []
        thing: list[int] = []
        kinds: set[str] = set()
        side, asked, since = 0, "", None
        after = fresh = False  # fresh: a thing was named since the last happening
        for word in _WORD.findall(text):
            if word in self._sides:
                side, after = side or self._sides[word], self._sides[word] > 0
                continue
            number = self._finder.known(word, typos=True)
            if number is None:
                asked = asked or next((kind for kind, words in self._point.asks.items() if word in words), "")
                asked = asked or ("event" if thing and word in _DOES else "")
                continue
            kind = self._finder.kind[self._finder.lexicon[number]]
            if kind in THING:
                if not (found and found[-1].kind == "sound" and number in self._verbs):
                    thing.append(number)
                    kinds.add(kind)
                    fresh = True
                continue
            kinds.add(kind)
            if kind not in self._search.tells:
                continue
            if found and found[-1].kind == kind and not fresh:
                found[-1] = self._with(found[-1], number)
            else:
                since = len(found) if after and found else since
                found.append(Happening(kind, ((number,),), self._told_of(kind, thing)))
                thing = thing if kind in LONE else []
            after = fresh = False
        if thing and found and not found[-1].thing and found[-1].kind not in LONE:  # "the bouncing of the red star"
            found[-1], thing = replace(found[-1], thing=self._told_of(found[-1].kind, thing)), []
        if asked in self._values and thing and not found:
            found.append(Happening(asked, tuple(self._values[asked]), self._told_of(asked, thing)))
        first = next((h.thing for h in found if h.thing), tuple(dict.fromkeys(thing)))
        return Named(tuple(found), first, frozenset(kinds), side if len(found) <= 1 else 0, since)

    def _with(self, last: Happening, number: int) -> Happening:
        """One more word: "rising" of a chirp, or another that it may be, as in "warmer or colder"."""
        together = tuple(dict.fromkeys((*last.words[-1], number)))
        if any({*together} <= {*value} for value in self._values[last.kind]):
            return replace(last, words=(*last.words[:-1], together))
        return replace(last, words=(*last.words, (number,)))


def told_of(search: SearchSpec, finder: Finder, kind: str, thing: list[int]) -> tuple[int, ...]:
    """What tokens that say a kind's words say of a thing, too: where phrases have that kind, their other fields."""
    if kind in LONE:
        return ()
    phrases = [p for m in search.phrases for group in search.groups(m) for p in group]
    fields = {f for p in phrases if f"{{{kind}}}" in p for f in re.findall(r"{(\w+)}", p)}
    told = [n for n in thing if finder.kind[finder.lexicon[n]] in fields]
    return tuple(dict.fromkeys(told or thing))
