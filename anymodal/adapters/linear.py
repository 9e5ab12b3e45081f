"""One linear layer: every feature is a token (LLaVA, FROMAGe, PandaGPT), or `merge` neighbours are (MiniGPT-v2).

Liu et al. 2023, arXiv 2304.08485; four tokens put into one by Chen et al. 2023, arXiv 2310.09478.
Shapes: B windows, T steps, P features a step, D feature width, N LM width, m neighbours merged.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from anymodal.errors import ConfigError


class Linear(nn.Module):
    """features (B, T, P, D), valid steps (B, T) -> states (B, T * P / m, D * m). Tensors: `projection.*`."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        merge: int = 1  # so many neighbouring features become one token
        norm: bool = False  # a LayerNorm behind it (SPHINX)
        bias: bool = True

        def __post_init__(self) -> None:
            if self.merge < 1:
                raise ValueError(f"merge {self.merge} must be at least 1")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(feature_width * config.merge, lm_width, bias=config.bias)
        self.norm = nn.LayerNorm(lm_width) if config.norm else nn.Identity()

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for features that cannot be merged without a rest."""
        if features.shape[2] % self.config.merge:
            raise ConfigError(f"{features.shape[2]} features a step are no multiple of merge {self.config.merge}",
                              fix="set merge to a number that divides them, or leave class tokens out")
        return features.unflatten(2, (-1, self.config.merge)).flatten(3).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """-> LM input embeddings (B, T * P / m, N)."""
        return self.norm(self.projection(states))
