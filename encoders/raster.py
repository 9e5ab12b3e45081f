"""Raster transformer: one-channel 16-bit pictures -> a sequence of features and a joint-space embedding.

For senses whose pixels are measurements: depth, thermal. Levels become values by one scale and one offset, square patches
go through a linear stem and a small transformer, as in ViT (Dosovitskiy et al. 2020, arXiv 2010.11929) and as
ImageBind does for depth and thermal (Girdhar et al. 2023, arXiv 2305.05665), at the size of a toy. A few convolutions
before the patches are cut tell small outlines apart with far fewer weights (Xiao et al. 2021, arXiv 2106.14881).
Shapes: B batch, H W pixels, C channels, P patches, D width, E joint width.
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
    about unit range train best. `missing`: the level of pixels without a reading, 0 in most depth cameras; they count as
    the picture's greatest value. `stem`: channels of convolutions of stride 2. Patches run row by row from the top left.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        image_px: int = 48
        patch_px: int = 6
        scale: float = 1 / 65535
        offset: float = 0.0
        missing: int | None = None
        stem: tuple[int, ...] = ()
        width: int = 96
        layers: int = 2
        heads: int = 4
        joint: int = 128

        def __post_init__(self) -> None:
            if self.patch_px < 1 or self.image_px < 1 or self.image_px % self.patch_px:
                raise ValueError(f"image_px {self.image_px} is not a multiple of patch_px {self.patch_px}")
            if self.patch_px % 2 ** len(self.stem):
                raise ValueError(f"patch_px {self.patch_px} is not a multiple of 2^{len(self.stem)}, the stride of stem")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if not (math.isfinite(self.scale) and self.scale and math.isfinite(self.offset)):
                raise ValueError(f"scale {self.scale!r} and offset {self.offset!r} make no values of levels")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        channels = (1, *config.stem)
        layers = [layer for new, out in zip(channels, channels[1:]) for layer in (
            nn.Conv2d(new, out, 3, stride=2, padding=1), nn.GroupNorm(1, out), nn.GELU())]
        self.stem = nn.Sequential(*layers)
        self.side = config.patch_px // 2 ** len(config.stem)  # of a patch, behind the stem
        self.body = PatchTransformer(channels[-1] * self.side**2, (config.image_px // config.patch_px) ** 2,
                                     config.width, config.layers, config.heads, config.joint)

    def values(self, levels: Tensor) -> Tensor:
        """Levels (B, H, W, 1) of any integer or float dtype -> float32 values of the same shape."""
        levels = levels.float()  # bf16 has 8 bits for 16-bit levels
        values = levels * self.config.scale + self.config.offset
        if self.config.missing is None:
            return values
        absent = levels == self.config.missing
        greatest = values.masked_fill(absent, -torch.inf).amax((1, 2, 3), keepdim=True)
        return torch.where(absent, greatest.nan_to_num(neginf=0.0), values)

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        size, side = self.config.image_px, self.side
        if levels.shape[1:] != (size, size, 1):
            raise ValueError(f"pictures are {tuple(levels.shape[1:])}, not {(size, size, 1)}")
        maps = self.stem(self.values(levels).permute(0, 3, 1, 2).to(self.body.stem.weight.dtype))
        return self.body(nn.functional.unfold(maps.float(), side, stride=side).transpose(1, 2))
