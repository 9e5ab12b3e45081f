"""SmolVLM2's eye: a SigLIP that knows where on a picture its patches are, a pixel shuffle and one linear layer.

Every frame of a video is made a square of one size; a picture may be read in crops as well, each as large, and then whole.
Shapes: B squares, H W pixels, P patches of a square, s the shuffle's factor, D tower width, N LM width.
Source: Marafioti et al. 2025, arXiv 2504.05299; Laurençon et al. 2024, arXiv 2408.12637 (crops, pixel shuffle).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from encoders.preprocess import HALF, checked, levels, normalise, resize

LANCZOS = int(Image.Resampling.LANCZOS)
MOST_PX = 4096  # of a picture's longer side
BATCH = 8  # squares at once


@dataclass(frozen=True, kw_only=True, slots=True)
class SquareRule:
    """How pictures become squares of `square_px`. `long_px`: of the longer side, to which they are resized before."""

    square_px: int = 512
    long_px: int = 2048
    resample: int = LANCZOS
    scale: float = 1 / 255
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SquareRule:
        """The rule of a `preprocessor_config.json`."""
        square = (config.get("max_image_size") or {"longest_edge": 364})["longest_edge"]
        return cls(square_px=square, long_px=(config.get("size") or {"longest_edge": 4 * square})["longest_edge"],
                   resample=int(config.get("resample", LANCZOS)), scale=float(config.get("rescale_factor", 1 / 255)),
                   mean=tuple(config.get("image_mean", HALF)), std=tuple(config.get("image_std", HALF)))

    def sized(self, frame: np.ndarray, *, long_px: int | None = None) -> np.ndarray:
        """uint8 (H, W, 3) with a longer side of `long_px`, and the other even, or odd where its own is cut off."""
        height, width = frame.shape[:2]
        long_px = min(MOST_PX, long_px or self.long_px)
        if width >= height:
            size = (int(long_px / (width / height)), long_px)
            size = (max(1, size[0] + size[0] % 2), size[1])
        else:
            size = (long_px, int(long_px * (width / height)))
            size = (size[0], max(1, size[1] + size[1] % 2))
        return resize(frame, size, self.resample)

    def frames(self, frames: np.ndarray | Sequence[np.ndarray], *, long_px: int | None = None) -> Tensor:
        """uint8 (B, H, W, 3), or a list of (H, W, 3) -> float32 (B, 3, side, side)."""
        side = (self.square_px, self.square_px)
        return self._pixels([resize(self.sized(f, long_px=long_px), side, self.resample) for f in checked(frames)])

    def crops(self, frame: np.ndarray) -> tuple[Tensor, int, int]:
        """uint8 (H, W, 3) -> float32 (B, 3, side, side), and rows and columns: the crops, row by row, then the whole; a
        picture no larger than a square is only that, with 0 rows and columns."""
        (frame,) = checked([frame])
        frame, side = self.sized(frame), self.square_px
        height, width = frame.shape[:2]
        if width >= height:
            wide = math.ceil(width / side) * side
            tall = math.ceil(int(wide / (width / height)) / side) * side
        else:
            tall = math.ceil(height / side) * side
            wide = math.ceil(int(tall * (width / height)) / side) * side
        frame = resize(frame, (tall, wide), self.resample)
        if tall <= side and wide <= side:
            return self._pixels([frame]), 0, 0
        cut = [frame[y : y + side, x : x + side] for y in range(0, tall, side) for x in range(0, wide, side)]
        return self._pixels([*cut, resize(frame, (side, side), self.resample)]), tall // side, wide // side

    def _pixels(self, squares: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(normalise(np.stack(squares), levels(self.scale, self.mean, self.std)))


class SmolVision(nn.Module):
    """Windows of pictures -> tokens of the language model's width, by transformers' own tower. Tensors:
    `vision_model.*`, `proj.weight`."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """vision, preprocessor: the checkpoint's. lm_width: of the language model. shuffle: its `scale_factor`. crops:
        whether a picture is read in crops, too; frames of a video never are."""

        vision: Mapping[str, Any] = field(default_factory=dict)
        preprocessor: Mapping[str, Any] = field(default_factory=dict)
        lm_width: int = 0
        shuffle: int = 2
        crops: bool = True
        attention: str = "sdpa"

        def __post_init__(self) -> None:
            if self.lm_width < 1 or self.shuffle < 1:
                raise ValueError(f"lm_width {self.lm_width} and shuffle {self.shuffle}: each must be at least 1")

    def __init__(self, config: Config) -> None:
        from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
        from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

        super().__init__()
        self.config, self.width = config, config.lm_width
        self.rule = SquareRule.from_config(config.preprocessor)
        sizes = SmolVLMVisionConfig(**{k: v for k, v in config.vision.items() if k != "model_type"})
        side = sizes.image_size // sizes.patch_size
        if side % config.shuffle:
            raise ValueError(f"{side} x {side} patches cannot be shuffled by {config.shuffle}")
        self.side = side
        self.vision_model = SmolVLMVisionTransformer._from_config(sizes, attn_implementation=config.attention)
        self.proj = nn.Linear(sizes.hidden_size * config.shuffle**2, config.lm_width, bias=False)

    @property
    def tokens(self) -> int:
        """Of one square."""
        return (self.side // self.config.shuffle) ** 2

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (B, 3, side, side) -> (B, P / s^2, N): s x s neighbours side by side, then the linear layer."""
        weight, by = self.proj.weight, self.config.shuffle
        found = []
        for piece in pixels.split(BATCH):
            states = self.vision_model(pixel_values=piece.to(weight.device, weight.dtype)).last_hidden_state
            cut = states.unflatten(1, (self.side // by, by, self.side // by, by))  # (B, y, dy, x, dx, D)
            found.append(self.proj(cut.transpose(2, 3).flatten(3).flatten(1, 2)))
        return torch.cat(found)

    @torch.inference_mode()
    def perceive(self, signal: Any, window_s: float) -> dict[str, Any]:
        """A frame, or a picture -> embeds (., N) and, of a picture's crops, which is whose: positions (., 3), of which the
        last two are row and column from 1, and 0 of the whole. Raises ValueError for a window of several frames."""
        if len(signal.data) > 1:
            raise ValueError(f"a window of {len(signal.data)} frames: this model has text between them, so let a window "
                             "have one: window_s x rate_hz of 1")
        if not (signal.still and self.config.crops):
            return {"embeds": self(self.rule.frames(signal.data)).flatten(0, 1).float().cpu().numpy()}
        pixels, rows, columns = self.rule.crops(signal.data[0])
        made = self(pixels)
        places = [(0, y + 1, x + 1) for y in range(rows) for x in range(columns)] + [(0, 0, 0)]
        return {"embeds": made.flatten(0, 1).float().cpu().numpy(),
                "positions": np.repeat(np.array(places, np.int32), made.shape[1], 0)}
