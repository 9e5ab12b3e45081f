"""Flamingo's Perceiver resampler: learned latents read all frames of a window, and themselves.

Alayrac et al. 2022, arXiv 2204.14198. `act: gelu` is OpenFlamingo's, `act: relu` that of IDEFICS (Laurencon et al. 2023,
arXiv 2306.16527), whose names the tensors have. OpenFlamingo's come through `from_open_flamingo`: it keeps keys and values
in one matrix. Frames are told apart by a learned vector each, if there are any (`frames`).
Shapes: B windows, T frames, P features a frame, D feature width, Q latents, N LM width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from anymodal.adapters.attention import attend, spread
from anymodal.errors import ConfigError

_OPEN_FLAMINGO = (  # names below `perceiver.`
    (r"^layers\.(\d+)\.0\.norm_media\.", r"blocks.\1.0.context_layer_norm."),
    (r"^layers\.(\d+)\.0\.norm_latents\.", r"blocks.\1.0.latents_layer_norm."),
    (r"^layers\.(\d+)\.0\.to_q\.", r"blocks.\1.0.q_proj."),
    (r"^layers\.(\d+)\.0\.to_out\.", r"blocks.\1.0.output_proj."),
    (r"^layers\.(\d+)\.1\.0\.", r"blocks.\1.1.ln."),
    (r"^layers\.(\d+)\.1\.1\.", r"blocks.\1.1.fc."),
    (r"^layers\.(\d+)\.1\.3\.", r"blocks.\1.1.c_proj."),
    (r"^norm\.", "layer_norm."),
    (r"^frame_embs$", "frame_embs"),
    (r"^latents$", "latents"),
)


def from_open_flamingo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors below `perceiver.` of an OpenFlamingo checkpoint -> under the names here. Raises KeyError for others."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if match := re.match(r"^layers\.(\d+)\.0\.to_kv\.weight$", name):
            key, value = tensor.chunk(2)
            found[f"blocks.{match[1]}.0.k_proj.weight"], found[f"blocks.{match[1]}.0.v_proj.weight"] = key, value
            continue
        pattern, to = next(((p, to) for p, to in _OPEN_FLAMINGO if re.search(p, name)), (None, None))
        if pattern is None:
            raise KeyError(name)
        found[re.sub(pattern, to, name)] = tensor
    return found


class PerceiverResampler(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> latents (B, Q, D)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 64
        layers: int = 6
        heads: int = 8
        head_width: int = 64
        act: str = "gelu"  # gelu: Flamingo; relu: IDEFICS
        qk_norm: bool = False  # heads' queries and keys are normed (IDEFICS)
        frames: int = 0  # rows of the frame embedding, the most frames of a window; 0: frames are not told apart
        native: bool = False  # the latents are the tokens, as wide as the features: for gated cross-attention

        def __post_init__(self) -> None:
            if min(self.queries, self.layers, self.heads, self.head_width) < 1:
                raise ValueError(f"queries {self.queries}, layers {self.layers}, heads {self.heads} and head_width "
                                 f"{self.head_width}: each must be at least 1")
            if self.act not in ("gelu", "relu"):
                raise ValueError(f"act {self.act!r} is neither gelu nor relu")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        if config.native and lm_width != feature_width:
            raise ConfigError(f"native latents are {feature_width} wide, tokens are asked for at {lm_width}",
                              fix=f"set native to false, or the language model's media_width to {feature_width}")
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.queries, feature_width))
        if config.frames:
            self.frame_embs = nn.Parameter(torch.randn(config.frames, feature_width))
        self.blocks = nn.ModuleList(nn.ModuleList([_Attention(feature_width, config), _Mlp(feature_width, config.act)])
                                    for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(feature_width)
        self.to_lm = nn.Identity() if config.native else nn.Linear(feature_width, lm_width)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for more frames than are told apart."""
        steps = features.shape[1]
        if self.config.frames:
            if steps > self.config.frames:
                raise ConfigError(f"{steps} frames are more than the {self.config.frames} that are told apart",
                                  fix="shorten window_s, lower rate_hz, or raise the adapter's frames")
            features = features + self.frame_embs[:steps, None]
        context = features.flatten(1, 2)
        latents = self.latents.expand(len(context), -1, -1)
        seen = spread(valid, context.shape[1])
        seen = torch.cat([seen, seen.new_ones(latents.shape[:2])], 1)
        for attention, mlp in self.blocks:
            latents = attention(context, latents, seen) + latents
            latents = mlp(latents) + latents
        return self.layer_norm(latents)

    def project(self, states: Tensor) -> Tensor:
        """Latents (B, Q, D) -> LM input embeddings (B, Q, N)."""
        return self.to_lm(states)


class _Attention(nn.Module):
    """Latents over [features; latents], each side with a norm of its own."""

    def __init__(self, width: int, config: PerceiverResampler.Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.context_layer_norm, self.latents_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_layer_norm = nn.LayerNorm(config.head_width) if config.qk_norm else nn.Identity()
        self.k_layer_norm = nn.LayerNorm(config.head_width) if config.qk_norm else nn.Identity()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.output_proj = nn.Linear(inner, width, bias=False)

    def forward(self, context: Tensor, latents: Tensor, seen: Tensor) -> Tensor:
        latents = self.latents_layer_norm(latents)
        both = torch.cat([self.context_layer_norm(context), latents], 1)
        query, key = self.q_proj(latents), self.k_proj(both)
        query = self.q_layer_norm(query.unflatten(-1, (self.heads, -1))).flatten(2)
        key = self.k_layer_norm(key.unflatten(-1, (self.heads, -1))).flatten(2)
        return self.output_proj(attend(query, key, self.v_proj(both), heads=self.heads, seen=seen))


class _Mlp(nn.Module):
    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width * 4, bias=False)
        self.act = ACT2FN[act]
        self.c_proj = nn.Linear(width * 4, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.fc(self.ln(x))))
