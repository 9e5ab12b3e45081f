"""Video-ChatGPT's pooling: one token a frame, its mean over places, and one a place, its mean over frames.

Maaz et al. 2023, arXiv 2306.05424, written from the paper. A window's missing frames are zeros among the frames' tokens, as
the published model fills its 100 up (`pad`), or are left out; the means over frames never count them.
Shapes: B windows, T frames, P features a frame, D feature width, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PREFIXES = {"mm_projector.": "projection."}  # in the published files


class SpatioTemporalPool(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T + P, D)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        steps: int = 100  # the most frames a window has
        pad: bool = True  # to `steps` frames' tokens, with zeros

        def __post_init__(self) -> None:
            if self.steps < 1:
                raise ValueError(f"steps {self.steps} must be at least 1")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(feature_width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ValueError for more frames than `steps`."""
        steps = features.shape[1]
        if steps > self.config.steps:
            raise ValueError(f"{steps} frames are more than the {self.config.steps} a window may have")
        weight = valid[:, :, None, None].to(features.dtype)
        frames = features.mean(2) * weight[..., 0]
        if self.config.pad:
            frames = nn.functional.pad(frames, (0, 0, 0, self.config.steps - steps))
        places = (features * weight).sum(1) / weight.sum(1).clamp(min=1)
        return torch.cat([frames, places], 1)

    def real(self, valid: Tensor, tokens: int) -> Tensor:
        """Which of the `tokens` are of the window: (B, T) -> bool (B, tokens); all of them with `pad`."""
        real = valid.new_ones(len(valid), tokens)
        if not self.config.pad:
            real[:, : valid.shape[1]] = valid
        return real

    def project(self, states: Tensor) -> Tensor:
        """States (B, T + P, D) -> LM input embeddings (B, T + P, N)."""
        return self.projection(states)
