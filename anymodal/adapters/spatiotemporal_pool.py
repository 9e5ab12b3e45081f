"""Video-ChatGPT's pooling: one token a frame, its mean over places, and one a place, its mean over frames.

Maaz et al. 2023, arXiv 2306.05424, written from the paper. Frames that a window lacks are zeros among the frames' tokens,
as the published model fills its 100 up; the means over frames never count them.
Shapes: B windows, T frames, F the most of them, P features a frame, D feature width, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.errors import ConfigError

PREFIXES = {"mm_projector.": "projection."}  # in the published files


class SpatioTemporalPool(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, F + P, D)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        frames: int = 100  # the most that a window has

        def __post_init__(self) -> None:
            if self.frames < 1:
                raise ValueError(f"frames {self.frames} must be at least 1")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(feature_width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for more frames than a window has."""
        steps = features.shape[1]
        if steps > self.config.frames:
            raise ConfigError(f"{steps} frames are more than the {self.config.frames} a window may have",
                              fix="shorten window_s, lower rate_hz, or raise the adapter's frames")
        weight = valid[:, :, None, None].to(features.dtype)
        frames = features.mean(2) * weight[..., 0]
        frames = nn.functional.pad(frames, (0, 0, 0, self.config.frames - steps))
        places = (features * weight).sum(1) / weight.sum(1).clamp(min=1)
        return torch.cat([frames, places], 1)

    def project(self, states: Tensor) -> Tensor:
        """States (B, F + P, D) -> LM input embeddings (B, F + P, N)."""
        return self.projection(states)
