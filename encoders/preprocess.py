"""Full-resolution RGB frames -> the pixels of a published vision model, by its own `preprocessor_config.json`.

Resized with Pillow, as the published processors on Pillow do, so the values are theirs to the last bit: after resizing
and cropping a pixel is still a byte, so rescaling and normalising is a table of 256 values for each colour.
Shapes: B frames, H W height and width in pixels, S the number of patches a frame may have, p patch side, d = 3 p^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
BILINEAR, BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)

_CLIP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True,
         "resample": BICUBIC, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
_BLIP = {"size": {"height": 384, "width": 384}, "resample": BICUBIC, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
DEFAULTS: dict[str, dict[str, Any]] = {  # what a published file may leave out, by the processor it names
    "CLIP": _CLIP, "Llava": _CLIP, "Bit": _CLIP, "Blip": _BLIP, "InstructBlipVideo": _BLIP,
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": BICUBIC, "image_mean": HALF, "image_std": HALF},
    "Siglip2": {"resample": BILINEAR, "image_mean": HALF, "image_std": HALF, "patch_size": 16, "max_num_patches": 256},
    "ViT": {"size": {"height": 224, "width": 224}, "resample": BILINEAR, "image_mean": HALF, "image_std": HALF},
}
_SUFFIXES = ("FeatureExtractor", "ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "VideoProcessor")
_SHORT_SIDE = ("CLIP", "Llava", "Bit")  # a size that is one number is the shorter side here, both sides elsewhere


def published(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A `preprocessor_config.json` -> the family of its processor and all its keys, defaults filled in.

    Raises ValueError for a processor whose rule is not known here.
    """
    kind = str(config.get("image_processor_type") or config.get("video_processor_type")
               or config.get("feature_extractor_type") or "CLIPImageProcessor")
    family = next((kind.removesuffix(s) for s in _SUFFIXES if kind.endswith(s)), kind)
    if family not in DEFAULTS:
        raise ValueError(f"no preprocessing rule for image_processor_type {kind!r}; known are {', '.join(DEFAULTS)}")
    return family, {**DEFAULTS[family], **{k: v for k, v in config.items() if v is not None}}


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRule:
    """Resize, crop, scale and normalise. Sizes are (height, width) in pixels.

    short_px: the shorter side after resizing; size_px: both sides exactly; neither: no resizing.
    pad_square: first pad to a square with the mean colour, as LLaVA-1.5's own code does with `image_aspect_ratio: pad`.
    """

    short_px: int | None = None
    size_px: tuple[int, int] | None = None
    crop_px: tuple[int, int] | None = None
    resample: int = BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pad_square: bool = False

    def __post_init__(self) -> None:
        if self.short_px is not None and self.size_px is not None:
            raise ValueError("a picture is resized by its shorter side or to an exact size, not both")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} need three values, std none of them 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, pad_square: bool = False) -> PictureRule:
        """The rule of a `preprocessor_config.json`. Raises ValueError for a rule that is not known here."""
        family, keys = published(config)
        size = keys.get("size") if keys.get("do_resize", True) else None
        if isinstance(size, int):
            size = {"shortest_edge": size} if family in _SHORT_SIDE else {"height": size, "width": size}
        if size is not None and not ({"shortest_edge"} == set(size) or {"height", "width"} == set(size)):
            raise ValueError(f"size {dict(size)} is neither shortest_edge nor height and width")
        crop = keys.get("crop_size") if keys.get("do_center_crop", False) else None
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        normal = keys.get("do_normalize", True)
        return cls(short_px=size["shortest_edge"] if size and "shortest_edge" in size else None,
                   size_px=(size["height"], size["width"]) if size and "height" in size else None,
                   crop_px=(crop["height"], crop["width"]) if crop else None, resample=int(keys["resample"]),
                   scale=float(keys.get("rescale_factor", 1 / 255)) if keys.get("do_rescale", True) else 1.0,
                   mean=tuple(keys["image_mean"]) if normal else (0.0, 0.0, 0.0),
                   std=tuple(keys["image_std"]) if normal else (1.0, 1.0, 1.0),
                   pad_square=pad_square or (family == "Llava" and bool(keys.get("do_pad", False))))

    @property
    def table(self) -> np.ndarray:
        """float32 (3, 256): what each byte of each colour becomes."""
        return levels(self.scale, self.mean, self.std)

    def shape(self, frame: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (H', W', 3): padded, resized and cropped, not yet normalised."""
        if self.pad_square:
            frame = to_square(frame, tuple(int(m * 255) for m in self.mean))
        if self.short_px is not None:
            frame = resize(frame, short_side(frame.shape[:2], self.short_px), self.resample)
        elif self.size_px is not None:
            frame = resize(frame, self.size_px, self.resample)
        return frame if self.crop_px is None else centre_crop(frame, self.crop_px)

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 frames (B, H, W, 3), or a list of (H, W, 3) of any sizes -> float32 (B, 3, H', W')."""
        shaped = [self.shape(frame) for frame in checked(frames)]
        if len({frame.shape for frame in shaped}) > 1:
            raise ValueError(f"frames of {sorted({f.shape[:2] for f in shaped})} pixels do not make one batch: this "
                             "rule neither crops nor resizes to an exact size")
        return torch.from_numpy(normalise(np.stack(shaped), self.table))


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRule:
    """SigLIP2 NaFlex: the aspect ratio is kept, within a number of patches (Tschannen et al. 2025, arXiv 2502.14786)."""

    patch_px: int = 16
    patches: int = 256
    resample: int = BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PatchRule:
        """The rule of a `preprocessor_config.json` of NaFlex."""
        _, keys = published(config)
        return cls(patch_px=keys["patch_size"], patches=keys["max_num_patches"], resample=int(keys["resample"]),
                   scale=float(keys.get("rescale_factor", 1 / 255)), mean=tuple(keys["image_mean"]),
                   std=tuple(keys["image_std"]))

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 frames -> patches float32 (B, S, d), which are real (B, S), and rows and columns of each (B, 2)."""
        frames = checked(frames)
        table, side = levels(self.scale, self.mean, self.std), self.patch_px
        pixels = np.zeros((len(frames), self.patches, 3 * side * side), np.float32)
        real = np.zeros((len(frames), self.patches), np.int32)
        grids = []
        for row, frame in enumerate(frames):
            height, width = within_patches(frame.shape[0], frame.shape[1], side, self.patches)
            grid = (height // side, width // side)
            values = normalise(resize(frame, (height, width), self.resample)[None], table)[0]
            cut = values.reshape(3, grid[0], side, grid[1], side).transpose(1, 3, 2, 4, 0)
            pixels[row, : grid[0] * grid[1]] = cut.reshape(grid[0] * grid[1], -1)
            real[row, : grid[0] * grid[1]] = 1
            grids.append(grid)
        return torch.from_numpy(pixels), torch.from_numpy(real), torch.tensor(grids)


def checked(frames: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames as a list. Raises ValueError for anything but uint8 (H, W, 3) with at least one pixel."""
    frames = list(frames)
    if not frames:
        raise ValueError("no frames to prepare")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame is uint8 (H, W, 3) RGB, found {frame.dtype} {frame.shape}")
    return frames


def levels(scale: float, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 (3, 256): every byte scaled in float64, then normalised in float32, as the published processors do."""
    scaled = (np.arange(256).astype(np.float64) * scale).astype(np.float32)
    mean, std = np.array(mean, np.float32), np.array(std, np.float32)
    return (scaled[None] - mean[:, None]) / std[:, None]


def normalise(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) through the table (3, 256)."""
    out = np.empty((len(frames), 3, *frames.shape[1:3]), np.float32)
    for colour in range(3):
        np.take(table[colour], frames[..., colour], out=out[:, colour])
    return out


def resize(frame: np.ndarray, size_px: tuple[int, int], resample: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (*size_px, 3), with Pillow."""
    if frame.shape[:2] == tuple(size_px):
        return frame
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((size_px[1], size_px[0]), resample))


def short_side(size: Sequence[int], short_px: int) -> tuple[int, int]:
    """(height, width) with the shorter side short_px and the other in proportion, rounded down."""
    height, width = size
    long_px = int(short_px * max(height, width) / min(height, width))
    return (long_px, short_px) if width <= height else (short_px, long_px)


def centre_crop(frame: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """The middle of a frame (H, W, 3); where the frame is smaller, black is put around it."""
    for axis, wanted in enumerate(size_px):
        spare = frame.shape[axis] - wanted
        if spare >= 0:
            frame = np.take(frame, range(spare // 2, spare // 2 + wanted), axis)
        else:
            before = (1 - spare) // 2
            pad = [(0, 0)] * 3
            pad[axis] = (before, -spare - before)
            frame = np.pad(frame, pad)
    return frame


def to_square(frame: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """A frame (H, W, 3) in the middle of a square of its longer side."""
    height, width = frame.shape[:2]
    side = max(height, width)
    if height == width:
        return frame
    out = np.empty((side, side, 3), np.uint8)
    out[:] = colour
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = frame
    return out


def within_patches(height: int, width: int, side: int, patches: int) -> tuple[int, int]:
    """(height, width), multiples of `side`, near the picture's own aspect ratio and of at most so many patches.

    The largest scale is found by bisection to 1e-5, as the published processor does: its rounding decides.
    """
    def scaled(scale: float, size: int) -> int:
        return max(side, math.ceil(size * scale / side) * side)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        fits = (scaled(middle, height) / side) * (scaled(middle, width) / side) <= patches
        low, high = (middle, high) if fits else (low, middle)
    return scaled(low, height), scaled(low, width)
