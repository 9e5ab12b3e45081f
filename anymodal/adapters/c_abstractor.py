"""Honeybee's C-Abstractor: convolutions keep what is near together, average pooling brings the grid down to the queries.

Cha et al. 2023, arXiv 2312.06742: residual blocks, adaptive average pooling to a smaller grid, residual blocks again, and
a small MLP. The blocks are those of RegNet (Radosavovic et al. 2020, arXiv 2003.13678) with squeeze-and-excitation,
LayerNorm over channels and SiLU. Tensor names are our own.
Shapes: B windows, T frames, P features a frame, D feature width, W own width, Q queries, N LM width, h w grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import grid_side
from anymodal.errors import ConfigError


class CAbstractor(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T * Q, W), row after row of frame after frame."""

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 144  # a square number
        width: int = 1024
        depth: int = 3  # residual blocks before and after the pooling
        mlp_layers: int = 2
        squeeze: float = 0.25  # width within squeeze-and-excitation, of the block's input
        patches: int = 0  # features a frame, each with a learned place added; 0: none is added

        def __post_init__(self) -> None:
            if min(self.queries, self.width, self.depth, self.mlp_layers) < 1:
                raise ValueError(f"queries {self.queries}, width {self.width}, depth {self.depth} and mlp_layers "
                                 f"{self.mlp_layers}: each must be at least 1")
            if int(self.queries**0.5 + 0.5) ** 2 != self.queries:
                raise ValueError(f"queries {self.queries} make no square grid")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int) -> None:
        super().__init__()
        self.config = config
        if config.patches:
            self.place = nn.Parameter(torch.randn(1, config.patches, feature_width) * 0.02)
        widths = [feature_width] + [config.width] * (2 * config.depth)
        blocks = [_Block(a, b, config.squeeze) for a, b in zip(widths, widths[1:])]
        self.before, self.after = nn.Sequential(*blocks[: config.depth]), nn.Sequential(*blocks[config.depth :])
        self.pool = nn.AdaptiveAvgPool2d(int(config.queries**0.5 + 0.5))
        layers: list[nn.Module] = [nn.Linear(config.width, lm_width)]
        for _ in range(config.mlp_layers - 1):
            layers += [nn.SiLU(), nn.Linear(lm_width, lm_width)]
        self.to_lm = nn.Sequential(*layers)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raises ConfigError for features that make no square grid, or for another number than have places."""
        batch, steps, patches = features.shape[:3]
        side = grid_side(patches, "the C-Abstractor")
        frames = features.flatten(0, 1)
        if self.config.patches:
            if patches != self.config.patches:
                raise ConfigError(f"{patches} features a step, and places for {self.config.patches}",
                                  fix=f"set the adapter's patches to {patches}")
            frames = frames + self.place
        grid = frames.transpose(1, 2).unflatten(2, (side, side))
        grid = self.after(self.pool(self.before(grid)))
        return grid.flatten(2).transpose(1, 2).unflatten(0, (batch, steps)).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, T * Q, W) -> LM input embeddings (B, T * Q, N)."""
        return self.to_lm(states)


class _Block(nn.Module):
    """1x1, 3x3 channel by channel, squeeze-and-excitation, 1x1, and a way around: (B, D, h, w) -> (B, W, h, w)."""

    def __init__(self, width_in: int, width: int, squeeze: float) -> None:
        super().__init__()
        narrow = max(1, round(width_in * squeeze))
        self.first = nn.Sequential(_Conv(width_in, width), nn.SiLU())
        self.near = nn.Sequential(_Conv(width, width, kernel=3), nn.SiLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, narrow, 1), nn.SiLU(),
                                     nn.Conv2d(narrow, width, 1), nn.Sigmoid())
        self.last = _Conv(width, width)
        self.around = nn.Identity() if width_in == width else _Conv(width_in, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.near(self.first(x))
        return nn.functional.silu(self.last(y * self.squeeze(y)) + self.around(x))


class _Conv(nn.Module):
    """A convolution without bias, then a norm over channels at each place. A 3x3 one takes channel by channel."""

    def __init__(self, width_in: int, width: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, padding=kernel // 2, groups=width if kernel > 1 else 1, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).movedim(1, -1)).movedim(-1, 1)
