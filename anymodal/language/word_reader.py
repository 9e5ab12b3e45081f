"""Which words each soft token of a window says.

Soft tokens of the default bundle are trained to say words (`anymodal.training.words`). This part reads them: each token by
itself, and all of a window's together, since what happens to one of several things is told by more than one token. It is
trained on tokens that are final (`anymodal.training.reading`), and changes nothing of what the language model sees.
Shapes: B windows, N tokens of each, W their width, D own width, V words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NOTHING = "nothing"  # what tokens say where there is none of the others


class WordReader(nn.Module):
    """tokens (B, N, W), slots (N,) -> log-odds that each says each word (B, N, V)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        words: tuple[str, ...]
        tokens: Mapping[str, int]  # of a window, by modality
        width: int = 96
        heads: int = 4
        dropout: float = 0.1

        def __post_init__(self) -> None:
            if other := [w for w in self.words if not isinstance(w, str)]:
                raise ValueError(f"words: {other[0]!r} is no word: put \"on\" and \"off\" in quotes")
            if NOTHING not in self.words or len(set(self.words)) < len(self.words):
                raise ValueError(f"words must name each word once, {NOTHING!r} among them")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def __init__(self, config: Config, *, token_width: int) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.starts = dict(zip(config.tokens, torch.tensor([0, *config.tokens.values()]).cumsum(0).tolist()))
        self.alone = nn.Linear(token_width, len(config.words))
        self.enter = nn.Linear(token_width, width)
        self.slot = nn.Parameter(torch.randn(sum(config.tokens.values()), width) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.leave = nn.Linear(width, len(config.words))
        self.drop = nn.Dropout(config.dropout)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.alone.bias, -3.0)  # most words are not said

    def slots(self, modalities: Sequence[tuple[str, int]]) -> Tensor:
        """Of a window's streams: (modality, tokens) each, in order -> (N,)."""
        rows = [torch.arange(count) % self.config.tokens[m] + self.starts[m] for m, count in modalities]
        return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)

    def forward(self, tokens: Tensor, slots: Tensor, there: Tensor | None = None) -> Tensor:
        """there: which tokens the others may look at, bool (B, N); None: all."""
        tokens = tokens.to(self.enter.weight.dtype)
        hidden = self.enter(tokens) + self.slot[slots.to(tokens.device)]
        batch, count, width = hidden.shape
        heads = self.qkv(self.norms[0](hidden)).view(batch, count, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if there is None else there[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)
        mixed = mixed.reshape(batch, count, width)
        hidden = hidden + self.drop(self.mixed(mixed))
        hidden = hidden + self.drop(self.narrow(torch.relu(self.wide(self.norms[1](hidden)))))
        return self.alone(tokens) + self.leave(hidden)
