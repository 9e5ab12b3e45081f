"""mPLUG-Owl's visual abstractor: queries read [queries; features] layer by layer, and an end vector follows.

Ye et al. 2023, arXiv 2304.14178. As published, a layer's residual goes around the normed queries, not the queries. Tensors
have the published names: `query_tokens` at the top, `encoder.layers.*`, `visual_fc.*` and `vit_eos` below `abstractor.`.
Shapes: B windows, T frames, P features a frame, D feature width, Q queries, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import attend
from anymodal.errors import ConfigError

PREFIXES = {"query_tokens": "query_tokens", "abstractor.": ""}


class VisualAbstractor(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T * Q, D), the queries of frame after frame."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 64
        layers: int = 6
        heads: int = 16
        mlp_width: int = 4096  # of the gated MLP
        eps: float = 1e-6  # of the norm within the MLP
        end: bool = True  # a learned vector follows each frame's tokens

        def __post_init__(self) -> None:
            if min(self.queries, self.layers, self.heads, self.mlp_width) < 1:
                raise ValueError(f"queries {self.queries}, layers {self.layers}, heads {self.heads} and mlp_width "
                                 f"{self.mlp_width}: each must be at least 1")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        if feature_width % config.heads:
            raise ConfigError(f"feature width {feature_width} is not a multiple of heads {config.heads}",
                              fix="set the adapter's heads")
        self.config = config
        self.query_tokens = nn.Parameter(torch.randn(1, config.queries, feature_width) * 0.02)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(_Layer(feature_width, config) for _ in range(config.layers))
        self.visual_fc = nn.Linear(feature_width, lm_width)
        if config.end:
            self.vit_eos = nn.Parameter(torch.randn(1, 1, lm_width) * 0.02)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        batch, steps = features.shape[:2]
        frames = features.flatten(0, 1)
        states = self.query_tokens.expand(len(frames), -1, -1)
        for layer in self.encoder.layers:
            states = layer.crossattention(states, frames)
        return states.unflatten(0, (batch, steps)).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, T * Q, D) -> LM input embeddings (B, T * (Q + 1), N) with the end vectors, (B, T * Q, N) without."""
        tokens = self.visual_fc(states)
        if not self.config.end:
            return tokens
        frames = tokens.unflatten(1, (-1, self.config.queries))
        end = self.vit_eos[:, None].expand(*frames.shape[:2], -1, -1)
        return torch.cat([frames, end], 2).flatten(1, 2)


class _Layer(nn.Module):
    def __init__(self, width: int, config: VisualAbstractor.Config) -> None:
        super().__init__()
        self.crossattention = _Block(width, config)


class _Block(nn.Module):
    def __init__(self, width: int, config: VisualAbstractor.Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1, self.normk = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.output = nn.Module(), nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention, name, nn.Linear(width, width))
        self.output.out_proj, self.output.norm2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.output.mlp = _GatedMlp(width, config)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        queries = self.norm1(queries)
        both = torch.cat([queries, self.normk(features)], 1)
        read = attend(self.attention.query(queries), self.attention.key(both), self.attention.value(both), heads=self.heads)
        queries = queries + self.output.out_proj(read)
        return queries + self.output.mlp(self.output.norm2(queries))


class _GatedMlp(nn.Module):
    def __init__(self, width: int, config: VisualAbstractor.Config) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, config.mlp_width), nn.Linear(width, config.mlp_width)
        self.w2 = nn.Linear(config.mlp_width, width)
        self.ffn_ln = nn.LayerNorm(config.mlp_width, eps=config.eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.ffn_ln(nn.functional.silu(self.w1(x)) * self.w3(x)))
