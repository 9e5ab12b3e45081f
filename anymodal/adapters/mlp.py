"""LLaVA-1.5's projector: two linear layers and a GELU, on every feature.

Liu et al. 2023, arXiv 2310.03744. Tensors have transformers' names, `linear_1.*` and `linear_2.*`.
Shapes: B windows, T steps, P features a step, D feature width, N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers.activations import ACT2FN

ORIGINAL_PREFIXES = {"mm_projector.0.": "linear_1.", "mm_projector.2.": "linear_2."}  # of LLaVA's own files


class Mlp(nn.Module):
    """features (B, T, P, D), valid steps (B, T) -> states (B, T * P, D): the features, in order."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        act: str = "gelu"
        bias: bool = True

        def __post_init__(self) -> None:
            if self.act not in ACT2FN:
                raise ValueError(f"act {self.act!r} is none of transformers' activations")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.linear_1 = nn.Linear(feature_width, lm_width, bias=config.bias)
        self.act = ACT2FN[config.act]
        self.linear_2 = nn.Linear(lm_width, lm_width, bias=config.bias)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        return features.flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """-> LM input embeddings (B, T * P, N)."""
        return self.linear_2(self.act(self.linear_1(states)))
