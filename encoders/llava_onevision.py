"""LLaVA-OneVision's eye: SigLIP and two linear layers; a picture whole and in crops, a video's frames pooled to a quarter.

A picture is laid on the grid of crops that wastes least of it, and read once more as a whole; each row of its features
ends with the vector `image_newline`. Frames of a video have no crops, and their features are averaged two by two.
The last newline of all is the language model's to say (`PretrainedLM.words`): it ends a picture, and a whole video.
Shapes: F frames, H W pixels, C crops and the whole, P = s x s features of a crop, D tower width, N LM width.
Source: Li et al. 2024, arXiv 2408.03326.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from encoders.preprocess import BICUBIC, CLIP_MEAN, CLIP_STD, checked, levels, normalise, resize
from encoders.siglip import SiglipTower

BATCH = 8  # pictures or crops at once


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRule:
    """How pictures and frames become pixels. `grids`: (height, width) in pixels that a picture may be laid on."""

    crop_px: tuple[int, int] = (384, 384)
    grids: tuple[tuple[int, int], ...] = ((384, 384),)
    resample: int = BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CropRule:
        """The rule of a `preprocessor_config.json`. Raises ValueError where it has no grids."""
        size = config.get("size") or {"height": 384, "width": 384}
        crop = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
        if not (grids := config.get("image_grid_pinpoints")):
            raise ValueError("the preprocessor has no image_grid_pinpoints")
        return cls(crop_px=crop, grids=tuple(map(tuple, grids)), resample=int(config.get("resample", BICUBIC)),
                   scale=float(config.get("rescale_factor", 1 / 255)),
                   mean=tuple(config.get("image_mean", CLIP_MEAN)), std=tuple(config.get("image_std", CLIP_STD)))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid that shows most of a picture's own pixels, and of those the one with least to fill up."""
        def shown(grid: tuple[int, int]) -> tuple[int, int]:
            by = min(grid[1] / width, grid[0] / height)
            own = min(int(width * by) * int(height * by), width * height)
            return own, own - grid[0] * grid[1]

        return max(self.grids, key=shown)

    def picture(self, frame: np.ndarray) -> Tensor:
        """uint8 (H, W, 3) -> float32 (C, 3, *crop_px): the whole, then its crops, row by row."""
        (frame,) = checked([frame])
        height, width = frame.shape[:2]
        tall, wide = self.grid(height, width)
        if wide / width < tall / height:
            size = (min(math.ceil(height * (wide / width)), tall), wide)
        else:
            size = (tall, min(math.ceil(width * (tall / height)), wide))
        laid = np.zeros((tall, wide, 3), np.uint8)
        top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
        laid[top : top + size[0], left : left + size[1]] = resize(frame, size, self.resample)
        down, across = self.crop_px
        crops = [laid[y : y + down, x : x + across] for y in range(0, tall, down) for x in range(0, wide, across)]
        return self.frames([frame, *crops])

    def frames(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 (F, H, W, 3), or a list of (H, W, 3) -> float32 (F, 3, *crop_px)."""
        sized = [resize(f, self.crop_px, self.resample) for f in checked(frames)]
        return torch.from_numpy(normalise(np.stack(sized), levels(self.scale, self.mean, self.std)))


class OneVision(nn.Module):
    """Windows of pictures -> tokens of the language model's width. Tensors: `tower.vision_model.*`, `linear_1.*`,
    `linear_2.*`, `image_newline`."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """vision, preprocessor: the checkpoint's. lm_width: of the language model. layer: the tower's hidden state that is
        read. aspect: "anyres_max_9" lets a picture have the features of nine crops."""

        vision: Mapping[str, Any] = field(default_factory=dict)
        preprocessor: Mapping[str, Any] = field(default_factory=dict)
        lm_width: int = 0
        layer: int = -1
        act: str = "gelu"
        bias: bool = True
        aspect: str = "anyres_max_9"
        attention: str = "sdpa"

        def __post_init__(self) -> None:
            if not self.aspect.removeprefix("anyres_max_").isdigit():
                raise ValueError(f"aspect {self.aspect!r} is not anyres_max_ and a number of crops")
            if self.lm_width < 1:
                raise ValueError(f"lm_width {self.lm_width} must be at least 1")
            if self.act not in ACT2FN:
                raise ValueError(f"act {self.act!r} is none of transformers' activations")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, config.lm_width
        self.rule = CropRule.from_config(config.preprocessor)
        self.tower = SiglipTower.from_pretrained_config(config.vision, layer=config.layer, attention=config.attention)
        self.side = config.vision["image_size"] // config.vision["patch_size"]
        self.most = int(config.aspect.removeprefix("anyres_max_"))  # crops whose features a picture may have
        self.linear_1 = nn.Linear(self.tower.width, config.lm_width, bias=config.bias)
        self.act = ACT2FN[config.act]
        self.linear_2 = nn.Linear(config.lm_width, config.lm_width, bias=config.bias)
        self.image_newline = nn.Parameter(torch.zeros(config.lm_width))

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (B, 3, h, w) -> (B, P, N)."""
        weight = self.linear_1.weight
        found = [self.linear_2(self.act(self.linear_1(self.tower(piece.to(weight.device, weight.dtype))[0])))
                 for piece in pixels.split(BATCH)]
        return torch.cat(found)

    def video(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 (F, H, W, 3) -> (F * ceil(s / 2)^2, N)."""
        made = self(self.rule.frames(frames)).unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        half = math.ceil(self.side / 2)
        pooled = nn.functional.interpolate(made, size=(half, half), mode="bilinear")
        return pooled.permute(0, 2, 3, 1).flatten(0, 2)

    def picture(self, frame: np.ndarray) -> Tensor:
        """uint8 (H, W, 3) -> (P + rows x (columns + 1), N): the whole, then the rows of the crops with their newlines."""
        made = self(self.rule.picture(frame))
        height, width = frame.shape[:2]
        down, across = (grid // crop for grid, crop in zip(self.rule.grid(height, width), self.rule.crop_px))
        rows = made[1:].view(down, across, self.side, self.side, -1).permute(4, 0, 2, 1, 3)
        rows = _without_padding(rows.flatten(1, 2).flatten(2, 3), height, width)
        too_many = math.sqrt(rows.shape[1] * rows.shape[2] / (self.most * self.side**2))
        if too_many > 1.1:
            size = (int(rows.shape[1] // too_many), int(rows.shape[2] // too_many))
            rows = nn.functional.interpolate(rows[None], size, mode="bilinear")[0]
        newline = self.image_newline[:, None, None].expand(-1, rows.shape[1], 1)
        return torch.cat([made[0], torch.cat([rows, newline], -1).flatten(1).T])

    @torch.inference_mode()
    def perceive(self, signal: Any, window_s: float) -> dict[str, Any]:
        """A window's frames, or a picture without its last newline -> embeds (., N), as numpy."""
        made = self.picture(signal.data[0])[:-1] if signal.still else self.video(list(signal.data))
        return {"embeds": made.float().cpu().numpy()}


def _without_padding(rows: Tensor, height: int, width: int) -> Tensor:
    """Features (N, h, w) of a grid without those of what was filled up around a picture of height x width."""
    tall, wide = rows.shape[1:]
    if width / height > wide / tall:
        spare = (tall - int(round(height * (wide / width), 7))) // 2
        return rows[:, spare : tall - spare]
    spare = (wide - int(round(width * (tall / height), 7))) // 2
    return rows[:, :, spare : wide - spare]
