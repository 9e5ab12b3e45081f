"""Finding the windows that a question is about by what their soft tokens say.

Soft tokens of the default bundle are trained to say words (`anymodal.training.words`), which the language model's own
output layer reads. Words of a question that few windows say point to these: in "is the star warmer or colder?" all windows
say "star", one says "star" and "warmer". A small language model answers from such a window where it stands right before
the question, and often cannot find it among all others.
Shapes: K windows, N tokens of each, W width, V words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.config import BundleSpec, SearchSpec
from anymodal.language.attach import AttachedLM
from anymodal.language.tokenizer import TextTokenizer

NOTHING = "nothing"  # what tokens say where there is none of the others
SAID = 0.2  # share among these words from which on a token says one wholly
KNOWN = 1.5  # what a word adds that every window says, beside its rarity
ALIKE = 0.9  # windows with so much of the best one's score are as good as it
_WORD = re.compile(r"[a-z]+")
_CLAUSE = re.compile(r"\b(?:after|before|since|until)\b")


class Finder:
    """The words are those of the bundle's `search`."""

    def __init__(self, spec: SearchSpec, tokenizer: TextTokenizer, model: nn.Module) -> None:
        self._words = sorted({w for values in spec.words.values() for value in values for w in value.split()})
        self._synonyms, self._model = spec.synonyms, model
        self._number = {w: i for i, w in enumerate(self._words)}
        self._happens = sorted({self._number[w] for kind in spec.tells for v in spec.words[kind] for w in v.split()})
        ids = [tokenizer.encode(w) for w in (*self._words, NOTHING)]
        self._ids = torch.tensor([i for row in ids for i in row])
        self._mean = torch.zeros(len(self._ids), len(ids))
        for column, start in enumerate(np.cumsum([0, *map(len, ids)])[:-1]):
            self._mean[start : start + len(ids[column]), column] = 1 / len(ids[column])

    @classmethod
    def of(cls, spec: BundleSpec, tokenizer: TextTokenizer, lm: nn.Module) -> Finder | None:
        """A bundle's; None where windows are not shown again, or their soft tokens do not stand among the text."""
        if not spec.memory.look_again or spec.search is None or isinstance(lm, AttachedLM):
            return None
        return cls(spec.search, tokenizer, lm.model)

    def words(self, question: str) -> list[int]:
        """The known words of a question: of its first clause that has any ("the star, after the bell": the star)."""
        clauses = (self._known(clause) for clause in _CLAUSE.split(question.lower()))
        return next((sorted(words) for words in clauses if words), [])

    def _known(self, text: str) -> set[int]:
        return {number for word in _WORD.findall(text) if (number := self.known(word)) is not None}

    def number(self, word: str) -> int:
        """Of a word of the bundle's."""
        return self._number[word]

    def known(self, word: str) -> int | None:
        """The number of the word that a word of a text is, or is a form of; None: none of the known ones."""
        forms = _forms(self._synonyms.get(word, word))
        return next((self._number[f] for f in forms if f in self._number), None)

    @torch.no_grad()
    def said(self, tokens: Tensor) -> np.ndarray:
        """How much each token says each word, shares that add up to 1: (..., N, V) of tokens (..., N, W)."""
        weight = self._model.get_output_embeddings().weight
        read = self._model.model.norm(tokens.to(weight.dtype)) @ weight[self._ids.to(weight.device)].T
        return torch.softmax(read.float() @ self._mean.to(read.device), -1).cpu().numpy()

    def happening(self, question: str, said: Sequence[np.ndarray]) -> np.ndarray:
        """How much each window says that something happens to what a question names: (K,), of `said` (N, V) each."""
        named = [i for i in self.words(question) if i not in self._happens]
        return np.array([(tokens[:, named].min(1) * tokens[:, self._happens].max(1)).max(initial=0)
                         if named and self._happens else 0.0 for tokens in said])

    def few(self, question: str, said: Sequence[np.ndarray], most: int) -> list[int]:
        """The windows with a token that says most of what a question names and few windows say, if there are at most `most`
        of them.

        said: of each window, (N, V).
        """
        words = self.words(question)
        if not words or not said or not most:
            return []
        told = [np.minimum(shares[:, words], SAID) / SAID for shares in said]
        usual = np.mean([tokens.max(0) for tokens in told], 0)
        worth = KNOWN - np.log(np.maximum(usual, 1e-2))
        score = np.array([(tokens @ worth).max(initial=0) for tokens in told])
        best = np.flatnonzero(score >= score.max() * ALIKE)
        return best.tolist() if score.max() >= KNOWN and len(best) <= min(most, len(said) - 1) else []


def _forms(word: str) -> tuple[str, ...]:
    """A word as tokens say it: "rings" and "ring", "bounced" and "bouncing" as "bounces"."""
    bare = re.sub(r"(?:e?d|ing)$", "", word)
    return tuple(dict.fromkeys((word, word.removesuffix("s"), word + "s", bare + "s", bare + "es")))
