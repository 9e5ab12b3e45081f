"""Inertial transformer: a window of accelerometer and gyroscope rows -> features and a joint-space embedding.

Patches of consecutive rows, one linear stem, a small transformer: ImageBind's design for IMU (Girdhar et al. 2023,
arXiv 2305.05665), at the size of a toy. Shapes: B batch, T rows, C axes, P patches, D width, E joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.patches import PatchTransformer

GRAVITY_M_S2 = 9.81


class ImuTransformer(nn.Module):
    """float rows (B, T, 6), accel in m/s^2 then gyro in rad/s -> features (B, P, D), unit joint embeddings (B, E)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        rate_hz: float = 50.0
        window_s: float = 1.0
        axes: int = 6
        patch_rows: int = 5
        width: int = 96
        layers: int = 2
        heads: int = 4
        joint: int = 128

        def __post_init__(self) -> None:
            if round(self.rate_hz * self.window_s) % self.patch_rows:
                raise ValueError(f"{self.rate_hz * self.window_s} rows a window is not a multiple of patch_rows "
                                 f"{self.patch_rows}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rows = round(config.rate_hz * config.window_s)
        # each patch also carries its own spread, which tells still from moving whatever the attitude
        self.body = PatchTransformer(config.axes * (config.patch_rows + 1), self.rows // config.patch_rows,
                                     config.width, config.layers, config.heads, config.joint)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = rows.float().clone()
        x[..., :3] = x[..., :3] / GRAVITY_M_S2
        x = torch.sign(x) * torch.log1p(x.abs())  # a hit reads ten times what a step does
        x = x.reshape(len(x), -1, self.config.patch_rows, self.config.axes)
        spread = 3.0 * x.std(dim=2, keepdim=True)
        return self.body(torch.cat([x, spread], 2).flatten(2))
