"""Qwen-VL's resampler: one layer of attention, with places in the picture marked on queries and keys alike.

Bai et al. 2023, arXiv 2308.12966. Places are two-dimensional sines and cosines; a picture of another size than the queries'
grid has them interpolated. Tensors are named as in the published files: `query`, `pos_embed`, `kv_proj.weight`, `attn.*`,
`ln_q.*`, `ln_kv.*` below `visual.attn_pool.`, and `ln_post.*`, `proj` below `visual.`.
Shapes: B windows, T frames, P features a frame, D feature width, Q queries, W own width, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import grid_side, sincos_grid
from anymodal.errors import ConfigError

PREFIXES = {"attn_pool.": "", "ln_post.": "ln_post.", "proj": "proj"}  # below `visual.`


class Resampler2d(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T * Q, W), the queries of frame after frame."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 256  # a square number
        width: int | None = None  # own width; None: the LM's
        heads: int = 32
        eps: float = 1e-6

        def __post_init__(self) -> None:
            if min(self.queries, self.heads) < 1:
                raise ValueError(f"queries {self.queries} and heads {self.heads}: each must be at least 1")
            if int(self.queries**0.5 + 0.5) ** 2 != self.queries:
                raise ValueError(f"queries {self.queries} make no square grid")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        width = config.width or lm_width
        if width % config.heads or width % 4:
            raise ConfigError(f"width {width} must be a multiple of heads {config.heads} and of 4",
                              fix="set the adapter's width or heads")
        self.config = config
        self.query = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.pos_embed = nn.Parameter(sincos_grid(width, int(config.queries**0.5 + 0.5)), requires_grad=False)
        self.kv_proj = nn.Identity() if feature_width == width else nn.Linear(feature_width, width, bias=False)
        self.attn = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=config.eps) for _ in range(3))
        self.proj = nn.Parameter(torch.randn(width, lm_width) * width**-0.5)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for features that make no square grid."""
        batch, steps, patches = features.shape[:3]
        value = self.ln_kv(self.kv_proj(features.flatten(0, 1)))
        query = (self.ln_q(self.query) + self.pos_embed).expand(len(value), -1, -1)
        key = value + self._places(grid_side(patches, "the resampler")).to(value.dtype)
        out = self.attn(query, key, value, need_weights=False)[0]
        return out.unflatten(0, (batch, steps)).flatten(1, 2)

    def _places(self, side: int) -> Tensor:
        """The queries' places, interpolated to a grid of side x side: (side * side, W)."""
        if side * side == len(self.pos_embed):
            return self.pos_embed
        own = int(len(self.pos_embed) ** 0.5 + 0.5)
        grid = self.pos_embed.float().view(1, own, own, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1).flatten(0, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, T * Q, W) -> LM input embeddings (B, T * Q, N)."""
        return self.ln_post(states) @ self.proj
