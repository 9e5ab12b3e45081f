"""Text for training: the tokenizer's corpus, and the joint-space text tower fed with phrases."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from anymodal.language.tokenizer import EOS, TextTokenizer
from anymodal.playground.offworld import off_world
from anymodal.playground.wordings import SLOTS, ask
from anymodal.playground.world import COLORS, PITCHES, PLACES, SHAPES, SIZES, SOUNDS, VISUAL_EVENTS

_FILL = {"obj": "{size} {color} {shape}", "a_obj": "a {color} {shape}", "objs": "{color} {shape}s", "color": "{color}",
         "size": "{size}", "place": "at the {place}", "sound": "{sound}", "a_sound": "a {pitch} {sound}",
         "when": " at the end", "after": " after the {color} {shape} {event}"}


def corpus(draws: int = 60_000, seed: int = 5) -> Iterator[str]:
    """Sentences like those the model will read and write: questions of every type, off-world ones, answers."""
    rng = random.Random(seed)
    kinds = sorted(SLOTS)
    for _ in range(draws):
        words = {"color": rng.choice(COLORS), "shape": rng.choice(SHAPES), "size": rng.choice(SIZES),
                 "place": rng.choice(PLACES), "sound": rng.choice(SOUNDS), "pitch": rng.choice(PITCHES),
                 "event": rng.choice(VISUAL_EVENTS)}
        kind = rng.choice(kinds)
        slots = {slot: _FILL.get(slot, "the {color} {shape} {event}").format(**words) for slot in SLOTS[kind]}
        yield " " + ask(rng, kind, slots, held_out=False)
        yield " a {size} {color} {shape} {place} {event}, a {pitch} {sound}".format(**words)
        if rng.random() < 0.5:
            yield " " + off_world(rng)


class TextSide(nn.Module):
    """The text tower with its tokenizer: phrases -> unit joint embeddings (K, E)."""

    def __init__(self, tower: nn.Module, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.tower, self.tokenizer = tower, tokenizer
        self._ids: dict[str, list[int]] = {}

    def ids(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        longest = self.tower.config.max_tokens
        for phrase in phrases:
            if phrase not in self._ids:
                self._ids[phrase] = self.tokenizer.encode(phrase)[: longest - 1] + [EOS]
        rows = [self._ids[p] for p in phrases]
        width = max(map(len, rows))
        ids = torch.tensor([r + [EOS] * (width - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
        return ids, mask

    def forward(self, phrases: Sequence[str]) -> Tensor:
        device = next(self.tower.parameters()).device
        ids, mask = self.ids(phrases)
        return self.tower(ids.to(device), mask.to(device))
