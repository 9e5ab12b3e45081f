"""Raster transformer: one-channel 16-bit pictures -> a sequence of features and a joint-space embedding.

For senses whose pixels are measurements: depth, thermal. Levels become values by one scale and one offset, square patches
of values go through a linear stem and a small transformer, as in ViT (Dosovitskiy et al. 2020, arXiv 2010.11929) and as
ImageBind does for depth and thermal (Girdhar et al. 2023, arXiv 2305.05665), at the size of a toy.
Shapes: B batch, H W pixels, P patches, D width, E joint width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.patches import PatchTransformer


class RasterTransformer(nn.Module):
    """16-bit levels (B, H, W, 1), H = W = image_px -> features (B, P, D) and unit joint embeddings (B, E).

    `scale`, `offset`: value = level * scale + offset, in the unit the model is trained on: depth in metres from
    millimetres is scale 0.001; degrees Celsius from hundredths of a kelvin are scale 0.01, offset -273.15. Values of
    about unit range train best. Patches run row by row from the top left.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        image_px: int = 48
        patch_px: int = 6
        scale: float = 1 / 65535
        offset: float = 0.0
        width: int = 96
        layers: int = 2
        heads: int = 4
        joint: int = 128

        def __post_init__(self) -> None:
            if self.patch_px < 1 or self.image_px < 1 or self.image_px % self.patch_px:
                raise ValueError(f"image_px {self.image_px} is not a multiple of patch_px {self.patch_px}")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if not (math.isfinite(self.scale) and self.scale and math.isfinite(self.offset)):
                raise ValueError(f"scale {self.scale!r} and offset {self.offset!r} make no values of levels")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.body = PatchTransformer(config.patch_px**2, (config.image_px // config.patch_px) ** 2, config.width,
                                     config.layers, config.heads, config.joint)

    def values(self, levels: Tensor) -> Tensor:
        """Levels of any integer or float dtype -> float32 values of the same shape."""
        return levels.float() * self.config.scale + self.config.offset  # fp32: bf16 has 8 bits for 16-bit levels

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        size, patch = self.config.image_px, self.config.patch_px
        if levels.shape[1:] != (size, size, 1):
            raise ValueError(f"pictures are {tuple(levels.shape[1:])}, not {(size, size, 1)}")
        grid = self.values(levels).view(len(levels), size // patch, patch, size // patch, patch)
        return self.body(grid.transpose(2, 3).reshape(len(levels), -1, patch**2))
