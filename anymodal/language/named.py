"""What a question names: a thing, and what happens, in order; and whether it asks of the time before or after.

The words, and other words for them, are those of the bundle's `search`; what a question asks for without naming it ("what
did the star do?") is in its `point`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from anymodal.config_words import PointSpec, SearchSpec
from anymodal.language.finder import Finder

THING = ("color", "shape", "size")  # kinds of words that a thing is named by
LONE = ("sound", "motion")  # kinds of what happens to no thing
_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"\d")
_ARTICLES = frozenset({"the", "a", "an"})
_FURTHER = re.compile(r"\b(?:what|which|who|whose|how|or)\b|[,.;:!?] *(?:and )?(?:when|where)\b")  # asks for more than yes
_ONLY = re.compile(r"\b(?:what|which)\b|\bthe (?:\w+ )?(?:sound|noise)\b|^(?:sound|noise)\b")  # asks for a sound,
_OTHER = re.compile(r"\b(?:how|where|size|shape|colou?r|place|position|direction|way|before|after)\b")  # and not for these
_ASKS = re.compile(r"\b(?:what|which|when)\b|\b(?:give|name|tell) (?:me |us )?the\b")  # for one of several
_NTH = re.compile(r"\b(?:(first|earliest)|last|latest|final) (?:\w+ )?(?:sound|noise)\b")
_NOT_NTH = frozenset("""if whether or how long since few two three several second next but seconds minute minutes both all
    each""".split())  # more than that, or another one
_ENDS = frozenset({"end", "ends", "ended", "stop", "stops", "stopped", "over"})
FILLERS = frozenset("""hey hi ok okay so well please just listen look can could you would tell me say know i want to wonder
    if whether at all ever in on the this that clip video picture scene screen off of edge there""".split())  # add nothing
EITHER = frozenset("""or a an is was it be call one does do did see has have there object thing shape item colour color
    size""".split())  # and these to "is it red or blue"
_DOES, _ASKED = frozenset({"do", "does", "did"}), frozenset({"you", "i"})  # "what did the star do", not "do you see"


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
    first is asked about. `first`: which of two came first is asked. `counts`: how many things there are. `start`: of the
    thing as it was at first. `polar`: yes or no is asked for. `anything`: likewise, of whether what happens does so to
    anything, and of nothing else. `heard`: what is heard while the thing is seen. `edge`: 1 where it is asked of the first
    of what happens, -1 of the last. `either`: the two words of a kind, one of which the thing is asked to have. `words`:
    all that are named, by number. `inside`: of a thing it is asked with no word of another world."""

    happenings: tuple[Happening, ...] = ()
    thing: tuple[int, ...] = ()
    kinds: frozenset[str] = frozenset()
    side: int = 0
    since: int | None = None
    first: bool = False
    counts: bool = False
    start: bool = False
    polar: bool = False
    anything: bool = False
    heard: bool = False
    edge: int = 0
    either: tuple[int, ...] = ()
    words: frozenset[int] = frozenset()
    inside: bool = False

    def happens(self, kind: str) -> bool:
        """Is it of what happens of that kind that the question asks?"""
        return any(h.kind == kind for h in self.happenings)


class Names:
    """Reads questions."""

    def __init__(self, search: SearchSpec, point: PointSpec, finder: Finder) -> None:
        self._search, self._point, self._finder = search, point, finder
        self._said = {text: finder.number(word) for word, text in point.says.items() if " " not in word + text}
        self._sides = {w: -1 for w in point.before} | {w: 1 for w in point.after}
        self._verbs = {n for word in search.plain if (n := finder.known(word)) is not None}  # "the bell rings"
        self._halves = {word: finder.number(behind) for word, behind in point.halves.items()}
        openings = "|".join(map(re.escape, point.polar)) or "(?!)"
        self._polar = re.compile(rf"(?:^|[,.;:!?] *|\b(?:if|whether) )(?:{openings})\b")
        asks, whatever = ("|".join(map(re.escape, texts)) or "(?!)" for texts in (point.whether, point.anything))
        self._anything = re.compile(rf"(?:(?:^|[,.;:!?] *)(?:{asks}) |\b(?:if|whether) (?:(?:{asks}) )?)(?:{whatever})\b")
        self._usual = search.plain | FILLERS | EITHER | point.before | point.after | point.first | point.starts
        self._usual |= point.lasts | point.counts | point.unless | point.inside.union(*point.asks.values())
        self._becomes = finder.number(point.becomes) if point.becomes else None
        self._event = finder.kind.get(point.becomes, "")
        self._told_of = partial(told_of, search, finder)
        self._values = {kind: [tuple(map(finder.number, value.split())) for value in values]
                        for kind, values in search.words.items()}

    def of(self, question: str) -> Named:
        text = self._finder.plain(question)
        named = self._of(text)
        return replace(named, inside=bool(named.thing) and self.usual(text))

    def usual(self, text: str) -> bool:
        """Whether a question has no word of another world."""
        words = _WORD.findall(text)
        return all(w in self._usual or self._finder.known(w) is not None for w in words) and not _NUMBER.search(text)

    def _of(self, text: str) -> Named:
        found: list[Happening] = []
        thing: list[int] = []
        kinds: set[str] = set()
        numbers: set[int] = set()
        side, asked, since = 0, "", None
        after = fresh = first = counting = False  # fresh: a thing was named since the last happening
        words = _WORD.findall(text)
        for before, word, behind in zip(["", *words], words, [*words[1:], ""], strict=False):
            if which := self._sides.get(word):
                side, after = side or which, which > 0
                continue
            if word in self._point.turns and found and (self._becomes,) in found[-1].words and not fresh:
                side = side or 1  # "change to"
                continue
            first = first or word in self._point.first
            if word in self._said:  # a way, which may be a place, too
                numbers.add(self._said[word])
                kinds.add(self._finder.kind[self._finder.lexicon[self._said[word]]])
            number = self._finder.known(word)
            if word in self._point.halves and self._finder.known(behind) != self._halves[word]:
                number = None
            if number is None:
                asked = asked or next((kind for kind, words in self._point.asks.items() if word in words), "")
                counting = counting or word in self._point.counts
                does = word in _DOES and behind not in _ASKED and not counting
                asked = asked or ("event" if thing and does else "")
                continue
            kind = self._finder.kind[self._finder.lexicon[number]]
            numbers.add(number)
            if kind in THING:
                if not (number in self._verbs and any(h.kind == "sound" for h in found) and not fresh):
                    thing.append(number)
                    kinds.add(kind)
                    fresh = True
                continue
            kinds.add(kind)
            if kind not in self._search.tells or kind in LONE and fresh and not self._noun(before):
                continue  # "the star turns"
            if found and found[-1].kind == kind and not fresh:
                found[-1] = self._with(found[-1], number)
            else:
                since = len(found) if after and found else since
                found.append(Happening(kind, ((number,),), self._told_of(kind, thing)))
                thing = thing if kind in LONE else []
            after = fresh = False
        if thing and found and not found[-1].thing and found[-1].kind not in LONE:  # "the bouncing of the red star"
            found[-1], thing = replace(found[-1], thing=self._told_of(found[-1].kind, thing)), []
        if not (found or thing or numbers) and asked in LONE + ("way",) and asked in self._values and self._whatever(text):
            found.append(Happening(asked, tuple(self._values[asked])))  # "is anything moving?", "did you hear anything?"
        heard = bool(thing) and not found and self._heard(asked, text)
        if asked in self._values and thing and not found and (heard or asked not in LONE):
            if asked != self._point.changing:
                found.append(Happening(asked, tuple(self._values[asked]), self._told_of(asked, thing)))
            elif side:  # "which colour was it before?"
                found.append(Happening(self._event, ((self._becomes,),), self._told_of(self._event, thing)))
        if not (found or side) and (either := self._either(text, thing)):
            thing = tuple(n for n in dict.fromkeys(thing) if n not in either)
            return Named((), self._plainly(thing), frozenset(kinds), either=either, words=frozenset(numbers))
        edge = self._edge(text) if asked in LONE and asked in self._values and not (thing or found or side) else 0
        if edge:
            found.append(Happening(asked, tuple(self._values[asked])))
        if any(self._two(h.thing) for h in found) or self._two(thing) or len(found) > 1 and any(
                not h.thing and h.kind not in LONE for h in found):
            return Named()  # of two things at once, or "the bell stops", no token tells
        one = next((h.thing for h in found if h.thing), self._plainly(thing))
        beside = one and len(found) <= 1 and not any(h.kind in LONE for h in found) and not _NUMBER.search(text)
        return Named(tuple(found), one, frozenset(kinds), side if beside else 0, since, first and len(found) == 2,
                     counts=self._counts(words, found), start=not found and not self._point.starts.isdisjoint(words),
                     polar=self._yes_or_no(text), anything=not side and self._of_anything(text, found), heard=heard,
                     edge=edge, words=frozenset(numbers))

    def _edge(self, text: str) -> int:
        """Is it asked of the first of several (1), or of the last (-1)?"""
        words = frozenset(_WORD.findall(text))
        if not _ASKS.search(text) or _NUMBER.search(text) or not _NOT_NTH.isdisjoint(words):
            return 0
        if "when" in words and not _ENDS.isdisjoint(words):  # which is not when it began
            return 0
        if named := _NTH.search(text):
            return 1 if named[1] else -1
        return (not self._point.starts.isdisjoint(words)) - (not self._point.lasts.isdisjoint(words))

    def _either(self, text: str, thing: Sequence[int]) -> tuple[int, ...]:
        """The two words of a kind that a thing has one of: "is the red star large or small", and nothing more?"""
        kinds: dict[str, list[int]] = {}
        for number in dict.fromkeys(thing):
            kinds.setdefault(self._finder.kind[self._finder.lexicon[number]], []).append(number)
        two = [numbers for numbers in kinds.values() if len(numbers) > 1]
        words = _WORD.findall(text)
        if len(two) != 1 or len(two[0]) != 2 or len(kinds) < 2 or words.count("or") != 1 or _NUMBER.search(text):
            return ()
        others = (word for word in words if self._finder.known(word) not in thing)
        return tuple(two[0]) if FILLERS.issuperset(set(others) - EITHER) else ()

    def _heard(self, asked: str, text: str) -> bool:
        """Is it asked what is heard, of which an answer may be that it is nothing?"""
        return asked in LONE and asked in self._point.none and bool(_ONLY.search(text)) and not _OTHER.search(text)

    def _yes_or_no(self, text: str) -> bool:
        """Is it asked whether there is something: "was there a time when the star stopped"?"""
        found = self._polar.search(text)
        return found is not None and not _FURTHER.search(text)

    def _of_anything(self, text: str, found: Sequence[Happening]) -> bool:
        """Is it asked whether anything does what is named: "did anything bounce", and nothing more?"""
        if len(found) == 1 and len(found[0].words) == len(self._values[found[0].kind]) and self._whatever(text):
            return not found[0].thing
        if len(found) != 1 or found[0].kind != self._event or found[0].thing or len(found[0].words) != 1:
            return False
        if not self._anything.search(text) or _FURTHER.search(text) or _NUMBER.search(text):
            return False
        others = _WORD.findall(self._anything.sub(" ", text, count=1))
        return FILLERS.issuperset(word for word in others if self._finder.known(word) not in found[0].words[0])

    def _whatever(self, text: str) -> bool:
        """Is it asked whether there is any of a kind, and nothing more?"""
        if not self._anything.search(text) or _FURTHER.search(text) or _NUMBER.search(text):
            return False
        kinds = frozenset().union(*self._point.asks.values())
        return (FILLERS | EITHER | kinds).issuperset(_WORD.findall(self._anything.sub(" ", text, count=1)))

    def _noun(self, before: str) -> bool:
        """Whether a word behind this one is a sound's or a motion's name."""
        number = self._finder.known(before)
        kind = "" if number is None else self._finder.kind[self._finder.lexicon[number]]
        return before in _ARTICLES or kind in ("pitch", *LONE)

    def _counts(self, words: Sequence[str], found: Sequence[Happening]) -> bool:
        """Is it asked how many things there are: "how many disks show up", not "how many seconds until the disk stops"?"""
        places = (i for i, word in enumerate(words) if word in self._point.counts)
        behind = next((words[i + 1 :] for i in places), None)
        if behind is None:
            return False
        what = next((w for w in behind if w not in self._search.plain), "")
        number = self._finder.known(what)
        named = number is not None and self._finder.kind[self._finder.lexicon[number]] in THING
        return named or not any(h.thing for h in found)

    def _plainly(self, thing: Sequence[int]) -> tuple[int, ...]:
        """A name without the size, which tokens say least surely, where it has two other words."""
        words = tuple(dict.fromkeys(thing))
        sure = tuple(n for n in words if self._finder.kind[self._finder.lexicon[n]] != THING[-1])
        return sure if len(sure) > 1 else words

    def _two(self, thing: Sequence[int]) -> bool:
        """Are several words of a kind in a name?"""
        kinds = [self._finder.kind[self._finder.lexicon[n]] for n in dict.fromkeys(thing)]
        return len(set(kinds)) < len(kinds)

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
    return tuple(dict.fromkeys(told if fields else thing))
