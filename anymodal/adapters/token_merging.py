"""Token merging: the most alike features of a frame are averaged until few enough are left.

Bolya et al. 2022, arXiv 2210.09461 (ToMe), written from the paper, as a step between encoder and language model: in each
round every other token looks for the most alike (by cosine) of those between, the most alike pairs become their mean,
weighted by how many features each stands for, and what is left stays in order. Nothing is learned but the projection.
Shapes: B frames, P features, D width, K kept, N LM width, r merged in a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.errors import ConfigError


class TokenMerging(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T * K, D), each frame's in its order."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 16  # tokens that are kept of a frame

        def __post_init__(self) -> None:
            if self.queries < 1:
                raise ValueError(f"queries {self.queries} must be at least 1")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(feature_width)
        self.projection = nn.Linear(feature_width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for fewer features than are kept."""
        if features.shape[2] < self.config.queries:
            raise ConfigError(f"{features.shape[2]} features a step are fewer than the {self.config.queries} kept",
                              fix=f"set queries to at most {features.shape[2]}")
        merged, _ = merge_tokens(features.flatten(0, 1), self.config.queries)
        return merged.unflatten(0, features.shape[:2]).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, T * K, D) -> LM input embeddings (B, T * K, N)."""
        return self.projection(self.norm(states))


def merge_tokens(x: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """(B, P, D) -> (B, keep, D), and how many of the P each stands for, (B, keep)."""
    sizes = x.new_ones(x.shape[:2])
    while x.shape[1] > keep:
        x, sizes = _round(x, sizes, min(x.shape[1] - keep, x.shape[1] // 2))
    return x, sizes


def _round(x: Tensor, sizes: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Merge r tokens of the odd places into their most alike of the even ones."""
    unit = nn.functional.normalize(x, dim=-1)
    best, partner = (unit[:, 1::2] @ unit[:, ::2].mT).max(-1)  # of each odd place
    gone = best.argsort(dim=-1, descending=True, stable=True)[:, :r]  # which odd places
    into = 2 * partner.gather(1, gone)
    gone = 2 * gone + 1
    totals = x * sizes[..., None]
    wide = [-1, -1, x.shape[2]]
    totals = totals.scatter_add(1, into[..., None].expand(wide), totals.gather(1, gone[..., None].expand(wide)))
    sizes = sizes.scatter_add(1, into, sizes.gather(1, gone))
    left = torch.ones_like(sizes, dtype=torch.bool).scatter(1, gone, False)
    left = left.nonzero()[:, 1].view(len(x), -1)
    sizes = sizes.gather(1, left)
    return totals.gather(1, left[..., None].expand(wide)) / sizes[..., None], sizes
