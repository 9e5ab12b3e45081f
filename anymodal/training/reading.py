"""Stage `reader`: the word reader, on tokens of a perception that stays as it is.

Encoding is what costs, so each step encodes a new clip or a few, keeps them, and learns from many of those kept; a run
that is resumed keeps anew. Which senses are absent is drawn each time, and whether what comes after a window is known yet.
What tokens say in any order is told by the order that costs least, as in `said`.
Shapes: B windows, N tokens of each, H of them in any order, W their width, V words, R windows that each is read with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from anymodal.language.tokenizer import TextTokenizer
from anymodal.language.word_reader import NOTHING, WordReader
from anymodal.training.language import LanguageStage, soft_tokens
from anymodal.training.words import HAPPENINGS

ABSENT = 0.15  # of a sense of a clip, when it is learned from
NEWEST = 0.25  # of a clip, that each window is read as its newest one


class ReaderStage(LanguageStage):
    """keep: so many clips; batch: so many are learned from at once."""

    name = "reader"

    def __init__(self, perception, lm, reader: WordReader, tokenizer: TextTokenizer, *, seed: int = 31, clips: int = 4,
                 seconds: tuple[int, ...] = (4,), keep: int = 2500, batch: int = 24) -> None:
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
        # of each clip's K windows: tokens (K, N, W), words (K, N, V), which are there (K, N)
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.reader.named_parameters(prefix="reader")

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            self.kept += self._clips(soft_tokens(self.frozen, batch), batch["words"])
        self.kept = self.kept[-self.keep :]
        return self.learned(batch["key"])

    def learned(self, key: int) -> tuple[Tensor, dict[str, float]]:
        """The loss on some of the clips that are kept."""
        self.dice.manual_seed(self.seed * 1_000_003 + key)
        clips = [self.kept[i] for i in torch.randint(len(self.kept), (self.batch,), generator=self.dice).tolist()]
        tokens, said, there = (torch.cat(column) for column in zip(*clips, strict=True))
        said = said.float()
        counts = torch.tensor([len(clip[0]) for clip in clips])
        senses = torch.rand(len(clips), len(self.reader.config.tokens), generator=self.dice) >= ABSENT
        fewer = there & senses[:, self.sense].repeat_interleave(counts, 0)
        there = torch.where(fewer.any(1, keepdim=True), fewer, there)
        around = self._around(counts.tolist(), torch.rand(len(clips), generator=self.dice) < NEWEST)
        device = self.reader.enter.weight.device
        with sdpa_kernel(SDPBackend.MATH):  # whose way back is several times as fast on a CPU
            logits = self.reader(tokens.to(device), self.slots, there.to(device), around).float().cpu()
        each = nn.functional.binary_cross_entropy_with_logits(logits, said, reduction="none").sum(-1)  # (B, N)
        each = each.index_copy(1, self.free, self._in_any_order(logits[:, self.free], said[:, self.free]))
        right = ((logits > 0) == (said > 0)).all(-1)
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

    def _around(self, counts: Sequence[int], newest: Tensor) -> Tensor:
        """The windows around each, of clips of so many, end to end: (B, R)."""
        reach = self.reader.config.reach
        offsets, rows, first = torch.arange(-reach, reach + 1), [], 0
        for count, last in zip(counts, newest.tolist(), strict=True):
            at = torch.arange(count)[:, None] + offsets
            known = (at >= 0) & (at < count) & ((offsets <= 0) | (not last))
            rows.append(torch.where(known, at + first, -1))
            first += count
        return torch.cat(rows)

    def _clips(self, soft: dict[str, Tensor], words: list[dict]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each clip's windows: tokens, words and which are there."""
        counts, width = self.reader.config.tokens, self.reader.enter.weight.shape[1]
        clips, length = next(iter(soft.values())).shape[:2] if soft else (1, len(words))
        rows = [soft[m].float().cpu() if m in soft else torch.zeros(clips, length, count, width)
                for m, count in counts.items()]
        tokens = torch.cat(rows, 2)
        there = torch.tensor([m in soft for m, count in counts.items() for _ in range(count)]).expand(length, -1)
        for i in range(clips):
            said = torch.zeros(length, len(self.sense), len(self.index))
            for k, window in enumerate(words[i * length : (i + 1) * length]):
                at = 0
                for modality, count in counts.items():
                    told = list(window[modality]) + [(NOTHING,) if modality == "video" else window[modality][0]] * count
                    for row in told[:count]:
                        said[k, at, [self.index[word] for word in row]] = 1.0
                        at += 1
            yield tokens[i].bfloat16(), said.bool(), there
