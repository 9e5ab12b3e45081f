"""Finding the windows that a question is about by what their soft tokens say.

Words of a question that few windows say point to these: in "is the star warmer or colder?" all windows say "star", one says
"star" and "warmer". A small language model answers from such a window where it stands right before the question, and often
cannot find it among all others.
Shapes: K windows, N tokens of each, W width, V words that a token may say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anymodal.config import SearchSpec
from anymodal.errors import ConfigError, nearest
from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import WordReader

SAID = 0.5  # likelihood from which on a token says a word wholly
KNOWN = 1.5  # what a word adds that every window says, beside its rarity
ALIKE = 0.9  # windows with so much of the best one's score are as good as it
KEPT = 256  # windows whose words are kept: a memory's, about
SHORT = 4  # letters of a word that may be misspelt
_WORD = re.compile(r"[a-z]+")
_CLAUSE = re.compile(r"\b(?:after|before|since|until)\b")


class Shown(Protocol):
    """A stream's tokens in a window: embeds (N, W)."""

    modality: str
    embeds: np.ndarray


class Finder:
    """The words are those of the bundle's `search`, of a text, and those of its word reader, of tokens."""

    def __init__(self, spec: SearchSpec, tokenizer: TextTokenizer, reader: WordReader) -> None:
        self.lexicon, self._tokenizer, self._reader = reader.config.words, tokenizer, reader
        self._synonyms = spec.synonyms
        self._number = {w: i for i, w in enumerate(self.lexicon)}
        self.kind = {w: kind for kind, values in spec.words.items() for value in values for w in value.split()}
        for word in self.kind.keys() - self._number.keys():
            raise ConfigError(f"search.words: no token says {word!r}", fix=nearest(word, self.lexicon))
        self._happens = sorted({self._number[w] for kind in spec.tells for v in spec.words[kind] for w in v.split()})
        self._kept: dict[tuple[int, ...], tuple[list[np.ndarray], np.ndarray]] = {}
        self._spelt = lru_cache(maxsize=4096)(self._mended)

    # --- texts -------------------------------------------------------------------------------------------------------

    def words(self, question: str) -> list[int]:
        """The known words of a question: of its first clause that has any ("the star, after the bell": the star)."""
        clauses = (self._known(clause) for clause in _CLAUSE.split(question.lower()))
        return next((sorted(words) for words in clauses if words), [])

    def _known(self, text: str) -> set[int]:
        return {number for word in _WORD.findall(text) if (number := self.known(word, typos=True)) is not None}

    def number(self, word: str) -> int:
        """Of a word that tokens may say."""
        return self._number[word]

    def known(self, word: str, *, typos: bool = False) -> int | None:
        """The number of the word that a word of a text is, or is a form of; None: none of the known ones. typos: also where
        a letter is wrong, too much or missing, or two have changed places."""
        forms = (f for same in _forms(word) for f in _forms(self._synonyms.get(same, same)))
        found = next((self._number[f] for f in forms if f in self.kind), None)
        return self._spelt(word) if found is None and typos else found

    def _mended(self, word: str) -> int | None:
        if len(word) < SHORT or len(self._tokenizer.encode(word)) == 1:  # which is a word of its own
            return None
        alike = [known for known in (*self.kind, *self._synonyms) if len(known) >= SHORT and _alike(word, known)]
        same = [known for known in alike if {*known} == {*word}]  # "riing" is a ring rather than rising
        found = {self.known(known) for known in same or alike}
        return found.pop() if len(found) == 1 else None

    # --- tokens ------------------------------------------------------------------------------------------------------

    def read(self, windows: Sequence[Sequence[Shown]]) -> list[np.ndarray]:
        """How likely each token of each window says each word: (N, V) of each."""
        keys = [tuple(id(s.embeds) for s in streams) for streams in windows]
        due = [streams for streams, key in zip(windows, keys, strict=True) if streams and key not in self._kept]
        for layout, rows in groupby(sorted(due, key=_layout), _layout):
            same = list(rows)
            tokens = torch.from_numpy(np.stack([np.concatenate([s.embeds for s in streams]) for streams in same]))
            for streams, said in zip(same, self.said(tokens, layout), strict=True):
                embeds = [s.embeds for s in streams]  # kept with it, their ids stay theirs
                self._kept[tuple(map(id, embeds))] = embeds, said
        found = [self._kept[key][1] if key else np.zeros((0, len(self.lexicon)), np.float32) for key in keys]
        for key in list(self._kept)[: max(0, len(self._kept) - max(KEPT, len(windows)))]:
            self._kept.pop(key, None)
        return found

    @torch.no_grad()
    def said(self, tokens: Tensor, layout: Sequence[tuple[str, int]]) -> np.ndarray:
        """The same of windows alike: (..., N, V) of tokens (..., N, W). layout: each stream's modality and tokens."""
        weight = self._reader.leave.weight
        rows = tokens.reshape(-1, *tokens.shape[-2:]).to(weight.device, weight.dtype)
        chances = torch.sigmoid(self._reader(rows, self._reader.slots(layout)).float()).cpu().numpy()
        return chances.reshape(*tokens.shape[:-1], -1)

    def happening(self, question: str, said: Sequence[np.ndarray]) -> np.ndarray:
        """How much each window says that something happens to what a question names: (K,), of `said` (N, V) each."""
        named = [i for i in self.words(question) if i not in self._happens]
        return np.array([np.minimum(tokens[:, named].min(1), tokens[:, self._happens].max(1)).max(initial=0)
                         if named and self._happens else 0.0 for tokens in said])

    def few(self, question: str, said: Sequence[np.ndarray], most: int) -> list[int]:
        """The windows with a token that says most of what a question names and few windows say, if there are at most `most`
        of them.

        said: of each window, (N, V).
        """
        words = self.words(question)
        if not words or not said or not most:
            return []
        told = [np.minimum(chances[:, words], SAID) / SAID for chances in said]
        usual = np.mean([tokens.max(0) for tokens in told], 0)
        worth = KNOWN - np.log(np.maximum(usual, 1e-2))
        score = np.array([(tokens @ worth).max(initial=0) for tokens in told])
        best = np.flatnonzero(score >= score.max() * ALIKE)
        return best.tolist() if score.max() >= KNOWN and len(best) <= min(most, len(said) - 1) else []


def _layout(streams: Sequence[Shown]) -> tuple[tuple[str, int], ...]:
    return tuple((s.modality, len(s.embeds)) for s in streams)


def _forms(word: str) -> tuple[str, ...]:
    """A word as tokens say it: "rings" and "ring", "bounced" and "bouncing" as "bounces"."""
    bare = re.sub(r"(?:e?d|ing)$", "", word)
    return tuple(dict.fromkeys((word, word.removesuffix("s"), word + "s", bare + "s", bare + "es")))


def _alike(a: str, b: str) -> bool:
    """Are they one slip apart: a letter less or more, another one, or two that have changed places?"""
    changed = [i for i, (x, y) in enumerate(zip(a, b)) if x != y]
    if len(a) != len(b):
        return a in _shorter(b) or b in _shorter(a)
    return len(changed) < 2 or len(changed) == 2 and a == _exchanged(b, changed[0])


def _exchanged(word: str, i: int) -> str:
    return word[:i] + word[i : i + 2][::-1] + word[i + 2 :]


def _shorter(word: str) -> Iterator[str]:
    """By each of its letters."""
    return (word[:i] + word[i + 1 :] for i in range(len(word)))
