"""Stage `reader`: the word reader, on tokens of a perception that stays as it is.

Encoding is what costs, so each step encodes a few new windows, keeps them, and learns from many of those kept; a run that
is resumed keeps anew. Which senses are absent is drawn each time. What tokens say in any order is told by the order that
costs least, as in `said`.
Shapes: B windows, N tokens of each, H of them in any order, W their width, V words.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import torch
from torch import Tensor, nn

from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import NOTHING, WordReader
from anymodal.training.language import LanguageStage, soft_tokens
from anymodal.training.words import HAPPENINGS

ABSENT = 0.15  # of a sense of a window, when it is learned from


class ReaderStage(LanguageStage):
    """keep: so many windows; batch: so many are learned from at once."""

    name = "reader"

    def __init__(self, perception, lm, reader: WordReader, tokenizer: TextTokenizer, *, seed: int = 31, clips: int = 4,
                 seconds: tuple[int, ...] = (4,), keep: int = 20_000, batch: int = 192) -> None:
        super().__init__(perception, lm, tokenizer, seed=seed, clips=clips, questions=0, seconds=seconds, reuse=1,
                         words=0.0, frozen=True, fields=1.0)
        self.reader, self.keep, self.batch = reader.train(), keep, batch
        self.index = {word: i for i, word in enumerate(reader.config.words)}
        counts = reader.config.tokens
        self.slots = reader.slots([*counts.items()])
        self.sense = torch.tensor([i for i, count in enumerate(counts.values()) for _ in range(count)])
        video = (self.sense == [*counts].index("video")).nonzero()[:, 0]
        self.free = video[-HAPPENINGS:]
        self.orders = torch.tensor(list(permutations(range(len(self.free)))))
        self.seed, self.dice = seed, torch.Generator()
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # tokens (N, W), words (N, V), which are there (N,)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.reader.named_parameters(prefix="reader")

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            self.kept += self._windows(soft_tokens(self.frozen, batch), batch["words"])
        self.kept = self.kept[-self.keep :]
        self.dice.manual_seed(self.seed * 1_000_003 + batch["key"])
        rows = torch.randint(len(self.kept), (self.batch,), generator=self.dice).tolist()
        tokens, said, there = (torch.stack(column) for column in zip(*(self.kept[i] for i in rows), strict=True))
        senses = torch.rand(len(rows), len(self.reader.config.tokens), generator=self.dice) >= ABSENT
        fewer = there & senses[:, self.sense]
        there = torch.where(fewer.any(1, keepdim=True), fewer, there)
        device = self.reader.enter.weight.device
        logits = self.reader(tokens.to(device), self.slots, there.to(device)).float().cpu()
        each = nn.functional.binary_cross_entropy_with_logits(logits, said, reduction="none").sum(-1)  # (B, N)
        each = each.index_copy(1, self.free, self._in_any_order(logits[:, self.free], said[:, self.free]))
        right = ((logits > 0) == said.bool()).all(-1)
        right[:, self.free] = True  # whose order says nothing
        parts = {f"exact_{m}": float(right[there & (self.sense == i)].float().mean())
                 for i, m in enumerate(self.reader.config.tokens) if (there & (self.sense == i)).any()}
        return each[there].mean(), parts

    def _in_any_order(self, logits: Tensor, said: Tensor) -> Tensor:
        """(B, H) costs of each token, in the order that costs least."""
        pairs = nn.functional.binary_cross_entropy_with_logits(
            logits[:, :, None].expand(-1, -1, said.shape[1], -1), said[:, None].expand(-1, logits.shape[1], -1, -1),
            reduction="none").sum(-1)  # (B, H tokens, H things to say)
        costs = pairs[:, torch.arange(len(self.free)), self.orders]  # (B, orders, H)
        return costs[torch.arange(len(costs)), costs.sum(-1).argmin(-1)]

    def _windows(self, soft: dict[str, Tensor], words: list[dict]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each window of all clips: tokens, words and which are there."""
        counts, width = self.reader.config.tokens, self.reader.enter.weight.shape[1]
        rows = {m: soft[m].flatten(0, 1).float().cpu() if m in soft else torch.zeros(len(words), count, width)
                for m, count in counts.items()}
        for b, window in enumerate(words):
            said = torch.zeros(len(self.sense), len(self.index))
            at = 0
            for modality, count in counts.items():
                told = list(window[modality]) + [(NOTHING,) if modality == "video" else window[modality][0]] * count
                for row in told[:count]:
                    said[at, [self.index[word] for word in row]] = 1.0
                    at += 1
            there = torch.tensor([m in soft for m, count in counts.items() for _ in range(count)])
            yield torch.cat([rows[m][b] for m in counts]), said, there
