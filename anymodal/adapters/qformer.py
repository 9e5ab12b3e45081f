"""Temporal Q-Former: learned queries attend over all features of one window.

BLIP-2's query transformer (Li et al. 2023, arXiv 2301.12597) through transformers, with a time embedding added to
the features of each frame as in Video-LLaMA (Zhang et al. 2023, arXiv 2306.02858), and a place embedding to those of
each patch: an encoder trained to name what a patch shows keeps little of where it is. The first regions x regions
queries each look at their own part of the frame, its neighbours' borders included, so that what is seen stays bound to
where; the others look everywhere. Each patch also carries how it changed since the step before, which is where motion
shows.
Shapes: B windows, T steps (frames), P features a step, D feature width, Q queries, W own width, N LM width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel


class QFormer(nn.Module):
    """features (B, T, P, D), valid steps (B, T) -> query states (B, Q, W); `project` takes them to the LM's width."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 8
        regions: int = 0  # a grid of regions x regions of the queries look at their part of the frame
        width: int = 192
        layers: int = 3
        heads: int = 6
        steps: int = 5  # the most steps a window has
        patches: int = 64  # features a step: each has its own learned position
        joint: int = 128
        token_norm: float | None = None  # of every token for the LM; None leaves them as they come

        def __post_init__(self) -> None:
            if self.queries < 1 or self.steps < 1 or self.patches < 1:
                raise ValueError(f"queries {self.queries}, steps {self.steps} and patches {self.patches}: "
                                 "each must be at least 1")
            if self.regions**2 > self.queries:
                raise ValueError(f"{self.queries} queries are too few for {self.regions} x {self.regions} regions")
            if self.regions and math.isqrt(self.patches) ** 2 != self.patches:
                raise ValueError(f"regions need a square grid of patches, found {self.patches}")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.randn(1, config.queries, config.width) * 0.5)
        self.time = nn.Parameter(torch.randn(1, config.steps, 1, feature_width) * 0.1)
        self.place = nn.Parameter(torch.randn(1, 1, config.patches, feature_width) * 0.3)
        self.body = Blip2QFormerModel(Blip2QFormerConfig(
            hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            intermediate_size=config.width * 4, cross_attention_frequency=1, encoder_hidden_size=feature_width,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, use_qformer_text_input=False))
        self.change = nn.Linear(feature_width, feature_width, bias=False) if config.steps > 1 else None
        self.register_buffer("reach", region_mask(config.queries, config.regions, config.patches), persistent=False)
        self.to_lm = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, lm_width))
        self.to_joint = nn.Linear(config.width, config.joint, bias=False)  # each query's own view of the joint space

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        batch, steps, patches, width = features.shape
        keys = features + self.time[:, :steps] + self.place[:, :, :patches]
        if self.change is not None:
            both = (valid[:, 1:] & valid[:, :-1])[:, :, None, None]
            step = (features[:, 1:] - features[:, :-1]) * both.to(features.dtype)
            keys = keys + self.change(nn.functional.pad(step, (0, 0, 0, 0, 1, 0)))
        keys = keys.reshape(batch, steps * patches, width)
        seen = valid[:, None, :, None] & self.reach[None, :, None, :patches]  # (B, Q, T, P)
        mask = torch.zeros(seen.shape, dtype=keys.dtype, device=keys.device).masked_fill(~seen, -1e9)
        out = self.body(query_embeds=self.queries.expand(batch, -1, -1), encoder_hidden_states=keys,
                        encoder_attention_mask=mask.reshape(batch, 1, -1, steps * patches))
        return out.last_hidden_state

    def project(self, states: Tensor) -> Tensor:
        """Query states (B, Q, W) -> LM input embeddings (B, Q, N).

        Tokens much longer than the embeddings of words drown whatever the LM adds to them, their time above all.
        """
        tokens = self.to_lm(states)
        norm = self.config.token_norm
        return tokens if norm is None else nn.functional.normalize(tokens, dim=-1) * norm

    def joint(self, states: Tensor) -> Tensor:
        """Query states (B, Q, W) -> unit joint-space vectors (B, Q, E)."""
        return nn.functional.normalize(self.to_joint(states).float(), dim=-1)


def region_mask(queries: int, regions: int, patches: int) -> Tensor:
    """Which patches each query may look at, bool (Q, P): its part of the frame and half as much around it."""
    mask = torch.ones(queries, patches, dtype=torch.bool)
    if regions:
        side = math.isqrt(patches)
        centre = (torch.arange(side) + 0.5) / side * regions  # in regions
        near = (centre[None, :] - (torch.arange(regions)[:, None] + 0.5)).abs() <= 1.0  # (R, side)
        mask[: regions**2] = (near[:, None, :, None] & near[None, :, None, :]).reshape(regions**2, patches)
    return mask
