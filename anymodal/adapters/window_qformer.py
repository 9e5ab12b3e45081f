"""SALMONN's window-level Q-Former: a small Q-Former reads every third of a second of sound on its own.

Tang et al. 2023, arXiv 2310.13289. Windows do not see each other, so sound that is cut at a multiple of `stride` frames
gives the tokens that the whole gives; frames beyond the last full window are left out, as published.
Shapes: B windows of the bundle, T steps, P frames a step, D feature width, F frames a read, R reads, Q queries,
W own width, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import spread
from anymodal.adapters.blip2_qformer import lavis_names, query_transformer
from anymodal.errors import ConfigError

# Prefixes of SALMONN's own .pth -> here. `*.position_ids` are to be ignored.
PREFIXES = {"speech_query_tokens": "query_tokens", "speech_Qformer.bert.": "qformer.",
            "speech_llama_proj.": "language_projection.", "ln_speech.": "norms.0.", "ln_audio.": "norms.1."}


class WindowQFormer(nn.Module):
    """features (B, T, P, D), valid steps (B, T) -> states (B, R * Q, W), of a T * P frames long sequence."""

    renames = lavis_names()

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 1
        frames: int = 17  # that are read together: 0.333 s of 50 a second
        stride: int = 17
        width: int = 768
        layers: int = 2
        heads: int = 12
        mlp_width: int = 3072
        cross_every: int = 1
        eps: float = 1e-12
        act: str = "gelu"
        parts: tuple[int, ...] = ()  # widths of encoders' features side by side, each normed on its own; none: no norm

        def __post_init__(self) -> None:
            if min(self.queries, self.frames, self.stride, self.layers) < 1:
                raise ValueError(f"queries {self.queries}, frames {self.frames}, stride {self.stride} and layers "
                                 f"{self.layers}: each must be at least 1")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        if config.parts and sum(config.parts) != feature_width:
            raise ConfigError(f"parts {tuple(config.parts)} add up to {sum(config.parts)}, features have {feature_width}",
                              fix="set parts to the widths of the encoders' features")
        self.config = config
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.parts)
        self.query_tokens = nn.Parameter(torch.randn(1, config.queries, config.width) * 0.02)
        self.qformer = query_transformer(config, feature_width)
        self.language_projection = nn.Linear(config.width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for fewer frames than are read together."""
        config, batch = self.config, len(features)
        frames = features.flatten(1, 2)
        if frames.shape[1] < config.frames:
            raise ConfigError(f"{frames.shape[1]} frames a window are fewer than the {config.frames} read together",
                              fix="lengthen window_s")
        if self.norms:  # a part that ended before the others is zeros, and stays so
            frames = torch.cat([norm(part) * (part != 0).any(-1, keepdim=True) for norm, part in
                                zip(self.norms, frames.split(tuple(config.parts), -1))], -1)
        reads = frames.unfold(1, config.frames, config.stride).transpose(2, 3)  # (B, R, F, D)
        seen = spread(valid, frames.shape[1]).unfold(1, config.frames, config.stride).flatten(0, 1)
        seen = seen | ~seen.any(1, keepdim=True)  # nothing at all is read as silence
        states = self.qformer(query_embeds=self.query_tokens.expand(len(seen), -1, -1),
                              encoder_hidden_states=reads.flatten(0, 1), encoder_attention_mask=seen.long())
        return states.last_hidden_state.unflatten(0, (batch, -1)).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, R * Q, W) -> LM input embeddings (B, R * Q, N)."""
        return self.language_projection(states)
