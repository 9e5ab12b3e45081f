"""Attention as adapters need it: some queries over features, of which some are not there.

Shapes: B batch, Q queries, K keys, W width of all heads together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anymodal.errors import ConfigError


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, seen: Tensor | None = None) -> Tensor:
    """query (B, Q, W) over key and value (B, K, W) -> (B, Q, W). seen: bool (B, K) or (B, Q, K).

    A query that sees nothing gets zero (Flamingo's text before the first picture), not what a softmax makes of it.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if seen is None:
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    seen = seen[:, None] if seen.dim() == 2 else seen  # (B, 1 or Q, K)
    some = seen.any(-1, keepdim=True)
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=(seen | ~some)[:, None])
    return out.transpose(1, 2).flatten(2) * some.to(out.dtype)


def spread(valid: Tensor, count: int) -> Tensor:
    """Valid steps (B, T) -> which of `count` features or tokens, as many of each step, are there: bool (B, count)."""
    return valid.repeat_interleave(count // valid.shape[1], 1)


def grid_side(patches: int, who: str) -> int:
    """The side of a square grid of so many features. Raises ConfigError for another number."""
    side = int(patches**0.5 + 0.5)
    if side * side != patches:
        raise ConfigError(f"{who} needs a square grid of features, found {patches} a step",
                          fix="leave class tokens out: `select: patch` of the encoder")
    return side


def sincos(width: int, places: Tensor) -> Tensor:
    """Sines, then cosines of places (...,) at width / 2 falling frequencies (Vaswani et al. 2017): (..., width)."""
    rate = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) * 2 / width)
    angles = places.to(torch.float64)[..., None] * rate
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def sincos_grid(width: int, side: int) -> Tensor:
    """(side * side, width): the first half of the width tells the column, the second half the row."""
    at = torch.arange(side)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    return torch.cat([sincos(width // 2, columns.flatten()), sincos(width // 2, rows.flatten())], 1)
