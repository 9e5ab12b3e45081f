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

from anymodal.config_words import SearchSpec
from anymodal.errors import ConfigError, nearest
from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import WordReader

SAID = 0.5  # likelihood from which on a token says a word wholly
KNOWN = 1.5  # what a word adds that every window says, beside its rarity
ALIKE = 0.9  # windows with so much of the best one's score are as good as it
KEPT = 512  # windows whose words are kept, of all sessions: a few memories
SHORT, LONG = 4, 6  # letters of a word that may be misspelt: in any way where it is long
NEVER = frozenset({"across", "talking", "raising"})  # words of their own, one slip from a known one
PLACES = ("place", "way")  # kinds of words that too many others are like
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
        phrases = sorted((k for k in spec.synonyms if " " in k), key=len, reverse=True)
        self._phrases = re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b") if phrases else None
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
        clauses = (self._known(clause) for clause in _CLAUSE.split(self.plain(question)))
        return next((sorted(words) for words in clauses if words), [])

    def plain(self, text: str) -> str:
        """In small letters, with one word for synonyms of several: "went away" as "disappears"."""
        text = " ".join(text.lower().split())
        return text if self._phrases is None else self._phrases.sub(lambda found: self._synonyms[found[0]], text)

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
        if len(word) < SHORT or word in NEVER or len(self._tokenizer.encode(word)) == 1:  # which is a word of its own
            return None
        names = [known for known, kind in self.kind.items() if kind not in PLACES]
        alike = [known for known in names if _slipped(word, known) or len(word) >= LONG and _alike(word, known)]
        return self.known(alike[0]) if len(alike) == 1 else None

    # --- tokens ------------------------------------------------------------------------------------------------------

    def read(self, windows: Sequence[Sequence[Shown]]) -> list[np.ndarray]:
        """How likely each token of each window says each word: (N, V) of each. What was read lately is kept."""
        keys = [tuple(id(s.embeds) for s in streams) for streams in windows]
        found: dict[tuple[int, ...], np.ndarray] = {}
        for key in keys:
            if (kept := self._kept.pop(key, None)) is not None:
                found[key], self._kept[key] = kept[1], kept  # the latest again
        due = {key: streams for key, streams in zip(keys, windows, strict=True) if key not in found}
        for layout, rows in groupby(sorted(due.items(), key=lambda row: _layout(row[1])), lambda row: _layout(row[1])):
            same = list(rows)
            if not sum(count for _, count in layout):
                found |= {key: np.zeros((0, len(self.lexicon)), np.float32) for key, _ in same}
                continue
            tokens = torch.from_numpy(np.stack([np.concatenate([s.embeds for s in streams]) for _, streams in same]))
            for (key, streams), said in zip(same, self.said(tokens, layout), strict=True):
                found[key] = said
                self._kept[key] = [s.embeds for s in streams], said  # with its embeddings, whose ids stay theirs
        for key in list(self._kept)[: max(0, len(self._kept) - KEPT)]:
            self._kept.pop(key, None)
        return [found[key] for key in keys]

    @torch.no_grad()
    def said(self, tokens: Tensor, layout: Sequence[tuple[str, int]]) -> np.ndarray:
        """The same of windows alike: (..., N, V) of tokens (..., N, W). layout: each stream's modality and tokens; those of
        senses that the reader does not know say nothing."""
        weight, known = self._reader.leave.weight, self._reader.config.tokens
        read = [row for row in layout if row[0] in known]
        mine = torch.tensor([m in known for m, count in layout for _ in range(count)])
        found = np.zeros((*tokens.shape[:-1], len(self.lexicon)), np.float32)
        if read:
            rows = tokens[..., mine, :].reshape(-1, int(mine.sum()), tokens.shape[-1]).to(weight.device, weight.dtype)
            chances = torch.sigmoid(self._reader(rows, self._reader.slots(read)).float()).cpu().numpy()
            found[..., mine.numpy(), :] = chances.reshape(*tokens.shape[:-2], *chances.shape[-2:])
        return found

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
    """A word as tokens say it: "rings" as "ring", "crosses" as "cross", "bounced" and "bouncing" as "bounces"."""
    bare = re.sub(r"(?:e?d|ing)$", "", word)
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), word + "s", bare + "s", bare + "es")
    return tuple(dict.fromkeys(forms))


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
    return word in _shorter(known) or known in _shorter(word)


def _shorter(word: str) -> Iterator[str]:
    """By each of its letters."""
    return (word[:i] + word[i + 1 :] for i in range(len(word)))
