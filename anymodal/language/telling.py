"""Questions that soft tokens answer whole: "what shapes are there?", "which object disappeared?".

The language model was not trained on lists of what there is; tokens say each thing and what happens to it.
Shapes: K windows, N tokens of each, V words that tokens may say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anymodal.language.listing import chances
from anymodal.language.named import EITHER, FILLERS
from anymodal.language.relied import Run
from anymodal.language.shown import THERE, both, windows
from anymodal.language.tokenizer import EOS

if TYPE_CHECKING:
    from anymodal.language.finder import Finder
    from anymodal.language.pointer import Pointer
    from anymodal.language.tokenizer import TextTokenizer

_WORD, _DIGIT = re.compile(r"[a-z]+"), re.compile(r"\d")
_ALL = re.compile(r"(?:what|which|list|name|say|tell|give)\b")  # begins what asks for all there is,
_THERE = re.compile(r"(?:so |and |ok |hey )*what(?: is|'s|s| was| else is)? there\b")
_WHO = re.compile(r"(?:what|which)\b")  # and for that to which something happens
_THINGS = {"shapes": "", "objects": "", "things": "", "items": "", "colours": "color", "colors": "color"}
_OTHERS = frozenset("""what which list name say tell give all of do did does are were is was there have has had can could
    you see seen saw shown visible present appear different many me us the in on here object shape thing
    item one ones and colour color""".split())


_NEVER = frozenset("if whether it to off edge size at where when how".split())  # "what did it bounce off?"
_KINDS = frozenset({"colour", "color", "colours", "colors"})  # "which colour changed?"


@dataclass(slots=True)
class Told:
    """An answer's text, how likely it is right, and what it relies on."""

    ids: list[int]
    chance: float
    runs: list[Run]
    _said: int = field(default=0, init=False)

    def weigh(self, scores: Tensor) -> Tensor:
        """The next token, and nothing else."""
        token = self.ids[self._said] if self._said < len(self.ids) else EOS
        chance = math.log(self.chance) if not self._said else 0.0
        return torch.full_like(scores, -torch.inf).index_fill(0, torch.tensor([token], device=scores.device), chance)

    def push(self) -> None:
        self._said += 1


class Teller:
    """Goes by a bundle's `point`."""

    def __init__(self, pointer: Pointer, finder: Finder, tokenizer: TextTokenizer) -> None:
        self._pointer, self._finder, self._tokenizer = pointer, finder, tokenizer

    def __call__(self, question: str, said: Sequence[np.ndarray]) -> Told | None:
        """What tokens, (N, V) of each window, answer a question; None: it asks for something else."""
        text = self._finder.plain(question).strip(" ?!.")
        words = _WORD.findall(text)
        if not said or not self._pointer.things or _DIGIT.search(text):
            return None
        numbers = [n for w in words if (n := self._finder.known(w)) is not None]
        nouns = [w for w in words if w in _THINGS]
        usual = (FILLERS | EITHER | _OTHERS | {*nouns}) - _NEVER
        if any(w not in usual and self._finder.known(w) is None for w in words):
            return None
        if not numbers and (len(nouns) == 1 and _ALL.match(text) or _THERE.fullmatch(text)):
            return self._all(windows(said), _THINGS[nouns[0]] if nouns else "")
        event = [n for n in numbers if self._finder.kind[self._finder.lexicon[n]] == self._pointer.happens]
        if len(numbers) == len(event) == 1 and _WHO.match(text) and _KINDS.isdisjoint(words):
            return self._who(windows(said), event[0])
        return None

    def _all(self, said: np.ndarray, kind: str) -> Told:
        """The things that were seen, or their words of a kind."""
        shown = chances(said, self._pointer.things, (), self._pointer.turns)
        when = {ids: int(both(said, self._pointer.things[ids]).argmax()) for ids in shown}
        names = sorted((ids for ids, chance in shown.items() if chance > THERE), key=lambda ids: when[ids])
        sure = min((max(chance, 1 - chance) for chance in shown.values()), default=THERE)
        texts = [self._tokenizer.decode(list(ids)).strip() for ids in names]
        if kind:
            values = {self._tokenizer.decode(list(ids)).strip() for ids in self._pointer.kinds[kind]}
            texts = list(dict.fromkeys(w for text in texts for w in text.split() if w in values))
        return self._said(texts, sure, [(0, len(said) - 1, self._pointer.sense(("shape",)))])

    def _who(self, said: np.ndarray, event: int) -> Told:
        """The things to which something happens, in order."""
        told = {ids: both(said, [*words, event]) for ids, words in self._pointer.things.items()}
        best = sorted((ids for ids in told if told[ids].max() > THERE), key=lambda ids: -told[ids].max())
        places: dict[tuple[int, ...], int] = {}
        for ids in best:  # one that turns into another is one
            k, shape = int(told[ids].argmax()), self._pointer.things[ids][-1]
            if not any(place == k and self._pointer.things[o][-1] == shape for o, place in places.items()):
                places[ids] = k
        names = sorted(places, key=places.__getitem__)
        sense = self._pointer.sense(("shape",))
        runs = [(places[ids], places[ids], sense) for ids in names] or [(0, len(said) - 1, sense)]
        sure = min((float(told[ids].max()) for ids in names), default=1 - max(float(t.max()) for t in told.values()))
        return self._said([self._tokenizer.decode(list(ids)).strip() for ids in names], sure, runs)

    def _said(self, texts: Sequence[str], chance: float, runs: list[Run]) -> Told:
        ids = self._tokenizer.encode(", ".join(texts)) if texts else list(self._pointer.nothing)
        return Told(ids, min(max(chance, 1e-3), 1 - 1e-3), list(dict.fromkeys(runs)))
