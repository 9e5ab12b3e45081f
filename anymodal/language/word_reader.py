"""Which words each soft token of a window says.

Soft tokens of the default bundle are trained to say words (`anymodal.training.words`). This part reads them: each token by
itself; all of a window's together, since what happens to one of several things is told by more than one token; and with
those of windows before and after, which tell what it was and what became of it. It is trained on tokens that are final
(`anymodal.training.reading`), and changes nothing of what the language model sees.
Shapes: B windows, N tokens of each, W their width, D own width, V words, R windows that each is read with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NOTHING = "nothing"  # what tokens say where there is none of the others


class WordReader(nn.Module):
    """tokens (B, N, W), slots (N,) or (B, N) -> log-odds that each says each word (B, N, V)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        words: tuple[str, ...]
        tokens: Mapping[str, int]  # of a window, by modality
        width: int = 96
        heads: int = 4
        dropout: float = 0.1
        reach: int = 0  # windows on either side that each is read with,
        reach_width: int = 64  # and how wide that look is

        def __post_init__(self) -> None:
            if other := [w for w in self.words if not isinstance(w, str)]:
                raise ValueError(f"words: {other[0]!r} is no word: put \"on\" and \"off\" in quotes")
            if NOTHING not in self.words or len(set(self.words)) < len(self.words):
                raise ValueError(f"words must name each word once, {NOTHING!r} among them")
            for name, width in (("width", self.width), ("reach_width", self.reach_width)):
                if width % self.heads:
                    raise ValueError(f"{name} {width} is not a multiple of heads {self.heads}")
            if self.reach < 0:
                raise ValueError(f"reach {self.reach} is less than 0")

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
        if config.reach:
            self.offset = nn.Parameter(torch.randn(2 * config.reach + 1, width) * 0.1)
            self.look, self.shown = nn.Linear(width, config.reach_width), nn.Linear(width, 2 * config.reach_width)
            self.beside_norm, self.beside = nn.LayerNorm(width), nn.Linear(config.reach_width, width)
            nn.init.zeros_(self.beside.weight)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.alone.bias, -3.0)  # most words are not said

    def slots(self, modalities: Sequence[tuple[str, int]]) -> Tensor:
        """Of a window's streams: (modality, tokens) each, in order -> (N,)."""
        rows = [torch.arange(count) % self.config.tokens[m] + self.starts[m] for m, count in modalities]
        return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)

    def forward(self, tokens: Tensor, slots: Tensor, there: Tensor | None = None, around: Tensor | None = None) -> Tensor:
        """there: which tokens the others may look at, bool (B, N); None: all. around: the windows that each is read with,
        by number, itself in the middle and -1 where there is none, (B, R); None: none but itself."""
        tokens = tokens.to(self.enter.weight.dtype)
        hidden = self.enter(tokens) + self.slot[slots.to(tokens.device)]
        batch, count, width = hidden.shape
        heads = self.qkv(self.norms[0](hidden)).view(batch, count, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if there is None else there[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)
        hidden = hidden + self.drop(self.mixed(mixed.reshape(batch, count, width)))
        if self.config.reach:
            hidden = hidden + self.drop(self._beside(hidden, there, around))
        hidden = hidden + self.drop(self.narrow(torch.relu(self.wide(self.norms[1](hidden)))))
        return self.alone(tokens) + self.leave(hidden)

    def _beside(self, hidden: Tensor, there: Tensor | None, around: Tensor | None) -> Tensor:
        """What each token reads in the windows around its own."""
        (batch, count, _), reach = hidden.shape, self.config.reach
        if around is None:
            around = torch.full((batch, 2 * reach + 1), -1)
            around[:, reach] = torch.arange(batch)
        around = around.to(hidden.device)
        normed = self.beside_norm(hidden)
        offset = nn.functional.linear(self.offset, self.shown.weight)  # what it adds to keys and values
        seen = self.shown(normed).index_select(0, around.clamp(min=0).flatten())  # several times as fast as indexing
        seen = (seen.view(*around.shape, count, -1) + offset[:, None]).view(batch, around.shape[1] * count, -1)
        mask = (around >= 0)[..., None].expand(-1, -1, count)
        mask = (mask if there is None else mask & there[around.clamp(min=0)]).reshape(batch, 1, 1, -1)
        query, (key, value) = self._heads(self.look(normed)), seen.chunk(2, -1)
        mixed = nn.functional.scaled_dot_product_attention(query, self._heads(key), self._heads(value), attn_mask=mask)
        return self.beside(mixed.transpose(1, 2).reshape(batch, count, -1))

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], self.config.heads, -1).transpose(1, 2)
