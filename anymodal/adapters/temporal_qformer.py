"""Video-LLaMA's temporal Q-Former: queries read all frames of a window, each marked with its place in time.

Zhang et al. 2023, arXiv 2306.02858. The vision branch first reads each frame with BLIP-2's Q-Former (`frames`), the audio
branch takes one vector a clip as it is. Then a position embedding is added to all that belongs to one step, and a
Q-Former of two layers, of which each looks at the features, pools the lot. Positions begin at 0 in every window, so a
window's tokens depend on it alone; a file in one window is the published model.
Shapes: B windows, T steps, P features a step, D feature width, Q queries, W own width, N LM width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import spread
from anymodal.adapters.blip2_qformer import Blip2QFormer, lavis_names, query_transformer
from anymodal.errors import ConfigError

# Prefixes of Video-LLaMA's own .pth -> here. `*.position_ids` are to be ignored.
VIDEO_PREFIXES = {"query_tokens": "frames.query_tokens", "Qformer.bert.": "frames.qformer.",
                  "video_query_tokens": "query_tokens", "video_Qformer.bert.": "qformer.",
                  "video_frame_position_embedding.": "position_embedding.", "llama_proj.": "language_projection."}
AUDIO_PREFIXES = {"audio_query_tokens": "query_tokens", "audio_Qformer.bert.": "qformer.",
                  "audio_position_embedding.": "position_embedding.", "audio_llama_proj.": "language_projection."}


class TemporalQFormer(nn.Module):
    """features (B, T, P, D), valid steps (B, T) -> query states (B, Q, W)."""

    renames = lavis_names()

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 32
        width: int = 768
        layers: int = 2
        heads: int = 12
        mlp_width: int = 3072
        cross_every: int = 1
        eps: float = 1e-12
        act: str = "gelu"
        positions: int = 32  # of the position embedding: the most steps a window may have
        frames: Mapping[str, Any] | None = None  # a Blip2QFormer's options: it reads each step first

        def __post_init__(self) -> None:
            if min(self.queries, self.layers, self.positions) < 1:
                raise ValueError(f"queries {self.queries}, layers {self.layers} and positions {self.positions}: "
                                 "each must be at least 1")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if self.frames is not None and Blip2QFormer.Config(**self.frames).text:
                raise ValueError("frames: a Q-Former that reads an instruction cannot be pooled over time beforehand")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.frames = None
        if config.frames is not None:
            frame = Blip2QFormer.Config(**config.frames)
            self.frames = Blip2QFormer(frame, feature_width=feature_width, lm_width=None)
            feature_width = frame.width
        self.position_embedding = nn.Embedding(config.positions, feature_width)
        self.query_tokens = nn.Parameter(torch.randn(1, config.queries, config.width) * 0.02)
        self.qformer = query_transformer(config, feature_width)
        self.language_projection = nn.Linear(config.width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for more steps than there are positions."""
        batch, steps = features.shape[:2]
        if steps > self.config.positions:
            raise ConfigError(f"{steps} steps are more than the {self.config.positions} positions there are",
                              fix="shorten window_s or lower rate_hz")
        if self.frames is not None:
            features = self.frames(features, valid).unflatten(1, (steps, -1))
        keys = features + self.position_embedding.weight[:steps, None]
        keys = keys.flatten(1, 2)
        return self.qformer(query_embeds=self.query_tokens.expand(batch, -1, -1), encoder_hidden_states=keys,
                            encoder_attention_mask=spread(valid, keys.shape[1]).long()).last_hidden_state

    def project(self, states: Tensor) -> Tensor:
        """Query states (B, Q, W) -> LM input embeddings (B, Q, N)."""
        return self.language_projection(states)
