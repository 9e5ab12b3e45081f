"""A bundle's words as tokens say them and as answers do, for what soft tokens say to weigh in on an answer (`pointing`).

The language model decides what kind of answer a question gets, and which steps lead to it. Which of a kind's words it says
("it bounces"), and which window's time, it reads off soft tokens through many layers; the word reader reads the same tokens
surely. So where the next token is one of a kind's words, or of a window's time, its probability is multiplied by how likely
that is of what the question names. That is a pointer-generator (See et al. 2017, arXiv 1704.04368) which points by product
instead of mixture: what the language model holds impossible stays so.
Shapes: K windows, N tokens of each, V words that tokens may say, T tokens of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from anymodal.config import BundleSpec
from anymodal.language.finder import Finder
from anymodal.language.listing import Turns
from anymodal.language.named import LONE, THING, Names
from anymodal.language.pointing import Pointing
from anymodal.language.shown import Change, windows
from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import NOTHING

_WORD, _DIGIT, _FIELD = re.compile(r"[a-z]+"), re.compile(r"\d"), re.compile(r"{(\w+)}")
_CLOCK = re.compile(r"[\d:.]")


class Pointer:
    """Goes by the bundle's `point`."""

    def __init__(self, spec: BundleSpec, finder: Finder, tokenizer: TextTokenizer) -> None:
        point, words = spec.point, spec.search.words
        self._finder, self._names = finder, Names(spec.search, point, finder)
        self.kinds = {kind: {tuple(tokenizer.encode(point.says.get(v, v))): tuple(map(finder.number, v.split()))
                             for v in words[kind]} for kind in point.kinds}
        said = {kind: {id_ for ids in table for id_ in ids} for kind, table in self.kinds.items()}
        self.rivals = {k: [o for o in said if o != k and said[o] & said[k]] for k in said}  # that say the same words
        self.asks, self.lists = frozenset(point.asks), frozenset(spec.search.tells)
        self._unless, self._hears = point.unless, point.asks.get(LONE[0], frozenset())
        self.happens = next((kind for kind in point.kinds if point.becomes in words[kind]), "")
        self._saying = {m: {kind for group in spec.search.groups(m) for phrase in group for kind in _FIELD.findall(phrase)}
                        for m in spec.search.phrases}  # which kinds' words a sense's tokens say
        self._senses = {kind: m for m in reversed(self._saying) for kind in self._saying[m]}
        self.begins = [finder.number(point.begins)] if point.begins else []
        told = {finder.number(part) for values in words.values() for value in values for part in value.split()}
        self.number = {i: n for i in range(tokenizer.vocab) if (word := tokenizer.decode([i]).strip())
                       and (n := finder.known(word)) in told}  # of tokens that are words of their own
        self.clock = [i for i in range(tokenizer.vocab) if _CLOCK.match(tokenizer.decode([i]))]  # what a time goes on with
        self.seconds, self.colons = tokenizer.encode("at 3 s")[-1], {i for i in self.clock if ":" in tokenizer.decode([i])}
        self.nothing, self.more = tuple(tokenizer.encode(NOTHING)), tokenizer.encode("red, red")[1]
        self.unseen = tokenizer.encode(point.unseen)[0] if point.unseen else None
        self.outside = tokenizer.encode(point.outside)[0] if point.outside else None
        self.none = {kind: tuple(tokenizer.encode(text)) for kind, text in point.none.items()}
        self.leaves = {kind: finder.number(word) for kind, word in point.leaves.items()}
        self.things = {tuple(tokenizer.encode(" ".join(name))): tuple(map(finder.number, name))
                       for name in product(*(words[kind] for kind in point.things))} if point.things else {}
        self.sides = [[finder.number(word)] if word else [] for word in (point.parts, point.enters)]  # not now; not first
        self.becomes = finder.number(point.becomes) if point.becomes else None
        comes = [finder.number(point.comes)] if point.comes else []
        self.turns = None if self.becomes is None else Turns(self.becomes, comes, [*self.leaves.values()])
        self.changing = point.changing
        parts = [[finder.number(part) for value in words[kind] for part in value.split()] for kind in point.things]
        self.change = Change(self.becomes, *self.sides, parts[0], sum(parts[1:], [])) if self.changing else None
        self.numbers = {tuple(tokenizer.encode(str(n))): n for n in range(10)}
        self.yes, self.no = (tokenizer.encode(word)[0] for word in ("yes", "no"))

    def alternatives(self, numbers: Iterable[int]) -> tuple[str, list[tuple[int, ...]]]:
        """The kind of words with these numbers, and how an answer says each of them; nothing: an answer says none such."""
        wanted = {(n,) for n in numbers}
        said = ((kind, [ids for ids, words in table.items() if words in wanted]) for kind, table in self.kinds.items())
        return next(((kind, found) for kind, found in said if len(found) == len(wanted)), ("", []))

    def sense(self, kinds: Iterable[str]) -> str:
        """The sense whose tokens say words of a kind."""
        return next((self._senses[kind] for kind in kinds if kind in self._senses), self._senses.get(THING[0], "video"))

    @classmethod
    def of(cls, spec: BundleSpec, finder: Finder | None, tokenizer: TextTokenizer) -> Pointer | None:
        """A bundle's; None where it has no `point`."""
        return None if spec.point is None or finder is None else cls(spec, finder, tokenizer)

    def point(self, question: str, labels: Sequence[tuple[int, ...]], said: Sequence[np.ndarray],
              all_of_it: bool = True, whole_from: int = 0) -> Pointing | None:
        """What windows tell of a question, `said` (N, V) of each, whose times read as `labels`; None: nothing. Whether they
        are `all_of_it`, or what is not in them may have been elsewhere; from place `whole_from` on there is no other."""
        named = self._names.of(question)
        if not said or not (named.happenings or named.thing or named.counts):
            return None
        moment = _DIGIT.search(question) is not None
        plain = not moment and self._unless.isdisjoint(_WORD.findall(question.lower()))
        return Pointing(self, named, list(labels), windows(said), all_of_it, plain, moment, whole_from)

    def usual(self, question: str) -> bool:
        """Whether a question has no word of another world."""
        return self._names.usual(question.lower())

    def needs(self, question: str) -> list[set[str]]:
        """Of each kind of word that a question names, the senses whose tokens say it: without any, nothing is told."""
        named = self._names.of(question)
        heard = not self._hears.isdisjoint(_WORD.findall(question.lower()))
        kinds = {h.kind for h in named.happenings} | ({LONE[0]} if heard else set())
        kinds |= {self._finder.kind[self._finder.lexicon[n]] for n in named.thing} & {*THING[:2]}
        return [senses for kind in kinds if (senses := {m for m, found in self._saying.items() if kind in found})]
