"""Words of a question that are misspelt, spelt right before anyone reads it: "the ornage satr, how mnay?".

Nearly all slips in typing exchange, drop, double or replace one letter (Damerau 1964, doi 10.1145/363958.363994). A word
with such a slip is taken for the one word that it may be, by letters exchanged or doubled before all else. Where it may be
several, one that names something is meant, then one whose letter has the struck key beside it; where it may be two still,
or is known itself, it is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache

SHORT = 3  # letters of a word that may be misspelt, by two exchanged; by any other slip, of what it is meant to be one more
ENDINGS = (("s", ""), ("d", ""), ("ed", ""), ("ing", ""), ("ing", "e"))
USUAL = 60  # times that a word of English stands in the list of pyspellchecker to be none that is misspelt
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # rows of a keyboard, each half a key further to the right
_WORD = re.compile(r"(?<![\w'’])[a-z]+(?![\w'’])")  # whole: not "wasn" of "wasn't"
_HOW = re.compile(r"(?<=\bhow )[a-z]+(?![\w'’])")


class Spelling:
    """words: what a word may be meant to be; few: those of them that too many others are like, to be taken for them but
    where letters are exchanged or doubled; counts: those that are meant behind "how", with any slip; known: whether one is
    a word as it stands; same: forms of one word have the same, and other words their own; names: whether one names
    something, and is meant rather than others."""

    def __init__(self, words: Iterable[str], few: Iterable[str], counts: Iterable[str], known: Callable[[str], bool],
                 same: Callable[[str], object] = str, names: Callable[[str], bool] = bool) -> None:
        self._words = sorted({w for w in words if len(w) >= SHORT})
        self._sure = [w for w in self._words if len(w) > SHORT and w not in {*few}]
        self._counts, self._same, self._names = sorted(counts), same, names
        self._known = lru_cache(maxsize=4096)(lambda word: any(map(known, stems(word))) or usual(word))
        self.word = lru_cache(maxsize=4096)(self._word)

    def __call__(self, text: str) -> str:
        """A text in small letters, with its words spelt right."""
        text = " ".join(text.lower().split())
        return _WORD.sub(lambda found: self.word(found[0]), _HOW.sub(lambda found: self._counted(found[0]), text))

    def _counted(self, word: str) -> str:
        found = [] if self._known(word) else [w for w in self._counts if _slipped(word, w) or _alike(word, w)]
        return found[0] if len(found) == 1 else word

    def _word(self, word: str) -> str:
        if len(word) < SHORT or self._known(word):
            return word
        found = [w for w in self._words if _slipped(word, w)] or [w for w in self._sure if _alike(word, w)]
        for meant in (lambda w: True, lambda w: w[0] == word[0] and self._names(w), lambda w: _beside(word, w)):
            found = [w for w in found if meant(w)] or found
            if len({*map(self._same, found)}) == 1:
                return found[0]
        return word


def usual(word: str) -> bool:
    """Is it a word of English?"""
    return _english()[word] >= USUAL


@cache
def _english() -> Mapping[str, int]:
    """How often each word stands in a lot of English."""
    from spellchecker import SpellChecker

    return SpellChecker(language="en").word_frequency


def stems(word: str) -> Iterator[str]:
    """A word, and what it may be a form of."""
    yield word
    yield from (word.removesuffix(ending) + left for ending, left in ENDINGS
                if word.endswith(ending) and len(word) - len(ending) >= SHORT)


def inflected(word: str) -> Iterator[str]:
    """A word that tokens say, as a question may: "star", "stars"; "bounces", "bounce", "bounced", "bouncing"."""
    yield word
    if not word.endswith("s"):
        yield word + "s"
    elif word.endswith("ss"):
        yield word + "es"
    else:
        stem = word[:-1]
        yield from (stem, stem.removesuffix("e") + "ed", stem.removesuffix("e") + "ing")


def _slipped(word: str, known: str) -> bool:
    """With two letters exchanged, or one doubled."""
    if len(word) == len(known):
        return any(word == known[:i] + known[i : i + 2][::-1] + known[i + 2 :] for i in range(len(known) - 1))
    doubled = (word[:i] + word[i + 1 :] for i in range(1, len(word)) if word[i] == word[i - 1])
    return len(word) == len(known) + 1 and known in doubled


def _alike(word: str, known: str) -> bool:
    """With a letter less or more, or another one."""
    if len(word) == len(known):
        return sum(x != y for x, y in zip(word, known, strict=True)) == 1
    return abs(len(word) - len(known)) == 1 and (word in _shorter(known) or known in _shorter(word))


def _beside(word: str, known: str) -> bool:
    """With the key beside a letter's struck instead."""
    if len(word) != len(known):
        return False
    (x, y), *more = [pair for pair in zip(word, known, strict=True) if pair[0] != pair[1]]
    return not more and y in _neighbours(x)


def _neighbours(key: str) -> set[str]:
    """The keys around one."""
    row, column = next(((r, keys.index(key)) for r, keys in enumerate(KEYS) if key in keys), (0, -9))
    near = [(row, column + 1), (row - 1, column), (row - 1, column + 1)]
    near += [(2 * row - r, 2 * column - c) for r, c in near]  # and across from them
    return {KEYS[r][c] for r, c in near if 0 <= r < len(KEYS) and 0 <= c < len(KEYS[r])}


def _shorter(word: str) -> Iterator[str]:
    """By each of its letters."""
    return (word[:i] + word[i + 1 :] for i in range(len(word)))
