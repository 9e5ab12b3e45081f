"""Finding the windows that a question is about by what their soft tokens say.

Words of a question that few windows say point to these: in "is the star warmer or colder?" all windows say "star", one says
"star" and "warmer". A small language model answers from such a window where it stands right before the question, and often
cannot find it among all others.
Shapes: K windows, N tokens of each, W width, V words that a token may say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from anymodal.config_words import PointSpec, SearchSpec
from anymodal.errors import ConfigError, nearest
from anymodal.language.spelling import Spelling, inflected, usual
from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import WordReader

if TYPE_CHECKING:
    from anymodal.memory import Span

SAID = 0.5  # likelihood from which on a token says a word wholly
KNOWN = 1.5  # what a word adds that every window says, beside its rarity
ALIKE = 0.9  # windows with so much of the best one's score are as good as it
KEPT = 512  # windows whose words are kept, of all sessions: a few memories
PLACES = ("place", "way")  # kinds of words that too many others are like
_WORD = re.compile(r"[a-z]+")
_CLAUSE = re.compile(r"\b(?:after|before|since|until)\b")


class Shown(Protocol):
    """A stream's tokens in a window: embeds (N, W)."""

    modality: str
    embeds: np.ndarray


class Finder:
    """The words are those of the bundle's `search` and `point`, of a text, and those of its word reader, of tokens."""

    def __init__(self, spec: SearchSpec, tokenizer: TextTokenizer, reader: WordReader,
                 point: PointSpec | None = None) -> None:
        self.lexicon, self._tokenizer, self._reader = reader.config.words, tokenizer, reader
        self.reach = reader.config.reach
        self._synonyms = spec.synonyms
        phrases = sorted((k for k in spec.synonyms if " " in k), key=len, reverse=True)
        self._phrases = re.compile(rf"\b({'|'.join(map(re.escape, phrases))})s?\b") if phrases else None
        self._number = {w: i for i, w in enumerate(self.lexicon)}
        self.kind = {w: kind for kind, values in spec.words.items() for value in values for w in value.split()}
        for word in self.kind.keys() - self._number.keys():
            raise ConfigError(f"search.words: no token says {word!r}", fix=nearest(word, self.lexicon))
        self._happens = sorted({self._number[w] for kind in spec.tells for v in spec.words[kind] for w in v.split()})
        self._kept: dict[tuple[int, ...], tuple[list[np.ndarray], np.ndarray]] = {}
        self.spelt = self._spelling(spec, point)

    # --- texts -------------------------------------------------------------------------------------------------------

    def words(self, question: str) -> list[int]:
        """The known words of a question: of its first clause that has any ("the star, after the bell": the star)."""
        clauses = (self._known(clause) for clause in _CLAUSE.split(self.plain(question)))
        return next((sorted(words) for words in clauses if words), [])

    def plain(self, text: str) -> str:
        """In small letters, with one word for synonyms of several: "went away" as "disappears"."""
        text = " ".join(text.lower().split())
        return text if self._phrases is None else self._phrases.sub(lambda found: self._synonyms[found[1]], text)

    def _known(self, text: str) -> set[int]:
        return {number for word in _WORD.findall(text) if (number := self.known(word)) is not None}

    def number(self, word: str) -> int:
        """Of a word that tokens may say."""
        return self._number[word]

    def known(self, word: str) -> int | None:
        """The number of the word that a word of a text is, or is a form of; None: none of the known ones."""
        forms = (f for same in _forms(word) for f in _forms(self._synonyms.get(same, same)))
        return next((self._number[f] for f in forms if f in self.kind), None)

    def _spelling(self, spec: SearchSpec, point: PointSpec | None) -> Spelling:
        """Of all words that are known here, and of those that are one token."""
        named = {word for word, kind in self.kind.items() if kind not in PLACES} | spec.plain
        words = {form for word in named for form in inflected(word) if form == word or usual(form)}
        words |= {w for names in spec.synonyms.items() for name in names for w in name.split()}
        asked = frozenset() if point is None else frozenset().union(*point.asks.values())
        if point is not None:
            words |= point.before | point.after | point.first | point.starts | point.lasts | point.counts | point.unless
            words = words.union(asked, *(text.split() for text in (*point.whether, *point.anything)))
        few = {word for word, kind in self.kind.items() if kind in PLACES}
        of_tokens = ((i, self._tokenizer.decode([i]).strip()) for i in range(self._tokenizer.vocab))
        words |= few | {word for i, word in of_tokens if usual(word) and self._tokenizer.encode(word) == [i]}
        counts = frozenset() if point is None else point.counts
        return Spelling(words, few, counts, lambda word: word in words or self.known(word) is not None,
                        lambda word: word if (number := self.known(word)) is None else number,
                        lambda word: word in named or word in spec.synonyms or word in asked)

    # --- tokens ------------------------------------------------------------------------------------------------------

    def spans(self, entries: Sequence[Span]) -> list[np.ndarray]:
        """Entries of a memory, in order: as `read`."""
        return self.read([e.parts for e in entries], [(e.first, e.last) for e in entries])

    def read(self, windows: Sequence[Sequence[Shown]], numbers: Sequence[tuple[int, int]] = ()) -> list[np.ndarray]:
        """How likely each token of each window says each word: (N, V) of each. What was read lately is kept.

        numbers: the first and the last window that each stands for, in order: it is read with those that it goes on from
        and that go on from it. None: each by itself.
        """
        near = around(numbers or [(2 * k, 2 * k) for k in range(len(windows))], self.reach)
        own = [tuple(id(s.embeds) for s in streams) for streams in windows]
        keys = [tuple(own[k] if k >= 0 else () for k in row) for row in near]
        found = {key: kept[1] for key in keys if (kept := self._kept.get(key)) is not None}
        due = [k for k, key in enumerate(keys) if key not in found]
        found |= zip((keys[k] for k in due), self._read(windows, [near[k] for k in due]), strict=True)
        for key, row in zip(keys, near, strict=True):  # the latest again, with embeddings whose ids stay theirs
            self._kept.pop(key, None)
            self._kept[key] = [s.embeds for j in row if j >= 0 for s in windows[j]], found[key]
        for key in list(self._kept)[: max(0, len(self._kept) - KEPT)]:
            self._kept.pop(key, None)
        return [found[key] for key in keys]

    def _read(self, windows: Sequence[Sequence[Shown]], near: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Windows by their places, each in the middle of those that it is read with."""
        config = self._reader.config
        layouts = [[(s.modality, len(s.embeds)) for s in streams] for streams in windows]
        known = [[m in config.tokens for m, count in layout for _ in range(count)] for layout in layouts]
        found = [np.zeros((len(known[row[config.reach]]), len(self.lexicon)), np.float32) for row in near]
        place = {j: i for i, j in enumerate(sorted({j for row in near for j in row if j >= 0 and any(known[j])}))}
        if not place:
            return found
        most = max(sum(known[j]) for j in place)
        tokens, slots = torch.zeros(len(place), most, self._reader.enter.in_features), torch.zeros(len(place), most).long()
        there, beside = torch.zeros(len(place), most, dtype=torch.bool), torch.full((len(place), len(near[0])), -1)
        for j, i in place.items():
            embeds = np.concatenate([s.embeds for s in windows[j]])[known[j]]
            tokens[i, : len(embeds)] = torch.from_numpy(embeds)
            slots[i, : len(embeds)] = self._reader.slots([row for row in layouts[j] if row[0] in config.tokens])
            there[i, : len(embeds)], beside[i, config.reach] = True, i
        due = [(said, row, place[row[config.reach]]) for said, row in zip(found, near, strict=True)
               if row[config.reach] in place]
        for _, row, i in due:
            beside[i] = torch.tensor([place.get(j, -1) for j in row])
        chances = self.chances(tokens, slots, there, beside)
        for said, row, i in due:
            own = known[row[config.reach]]
            said[own] = chances[i, : sum(own)]
        return found

    @torch.no_grad()
    def chances(self, tokens: Tensor, slots: Tensor, there: Tensor | None, around: Tensor) -> np.ndarray:
        """What the reader says of what it takes, likelihoods: (B, N, V)."""
        weight = self._reader.leave.weight
        there = None if there is None else there.to(weight.device)
        logits = self._reader(tokens.to(weight.device, weight.dtype), slots, there, around)
        return torch.sigmoid(logits.float()).cpu().numpy()

    def clip(self, tokens: Tensor, layout: Sequence[tuple[str, int]], seconds: Sequence[int]) -> list[np.ndarray]:
        """The same of one clip's windows at these seconds: (N, V) each, of tokens (K, N, W) of modalities with so many."""
        read = [row for row in layout if row[0] in self._reader.config.tokens]
        known = torch.tensor([row in read for row in layout for _ in range(row[1])])
        found = np.zeros((*tokens.shape[:2], len(self.lexicon)), np.float32)  # of other senses nothing is known
        if read:
            near = torch.tensor(around([(at, at) for at in seconds], self.reach))
            found[:, known.numpy()] = self.chances(tokens[:, known.to(tokens.device)], self._reader.slots(read), None, near)
        return list(found)

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


def around(numbers: Sequence[tuple[int, int]], reach: int) -> list[list[int]]:
    """The windows that each is read with, by their places, itself in the middle: those that go on from one another by
    their first and last numbers; -1: none."""
    found = []
    for k in range(len(numbers)):
        row = [k]
        for _ in range(reach):
            first, last = row[0], row[-1]
            goes_back = first > 0 and numbers[first - 1][1] + 1 == numbers[first][0]
            goes_on = 0 <= last < len(numbers) - 1 and numbers[last][1] + 1 == numbers[last + 1][0]
            row = [first - 1 if goes_back else -1, *row, last + 1 if goes_on else -1]
        found.append(row)
    return found


def _forms(word: str) -> tuple[str, ...]:
    """A word as tokens say it: "rings" as "ring", "crosses" as "cross", "bounced" and "bouncing" as "bounces"."""
    bare = re.sub(r"(?:e?d|ing)$", "", word)
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), word + "s", bare + "s", bare + "es")
    return tuple(dict.fromkeys(forms))
