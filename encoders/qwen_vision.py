"""The picture towers of Qwen2.5-VL, Qwen3-VL and Qwen2.5-Omni: pictures of any size, two frames to a patch of time.

Frames are resized to whole patches within a number of pixels, cut into patches of two frames each, and every `merge` x
`merge` neighbours become one feature. Attention is within a patch of time, so a clip that comes in pieces of whole pairs
of frames has the features that it has at once.
Shapes: F frames, H W pixels, G patches of time, h w patches down and across, S = G h w patches, d = 3 x 2 x p^2 values of
one, N features, D their width, L layers that have something to add deeper in the language model (deepstack).
Source: Bai et al. 2025, arXiv 2502.13923 (Qwen2.5-VL); Qwen3-VL: arXiv 2511.21631; Xu et al. 2025, arXiv 2503.20215.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.preprocess import BICUBIC, CLIP_MEAN, CLIP_STD, checked, levels, normalise, resize

PATCH_PX, FRAMES, MERGE = 14, 2, 2  # of Qwen2-VL, where a preprocessor does not say
MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 1280
MOST_NARROW = 200  # the most times that a picture may be longer than it is wide


@dataclass(frozen=True, slots=True)
class Patches:
    """`pixels` float32 (S, d), in the order that the towers want, and the `grid` (G, h, w) that they are of."""

    pixels: Tensor
    grid: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class GridFeatures:
    """`features` (N, D) of a `grid` (G, h, w) counted in features: across, then down, then in time. `extras` (L, N, D)."""

    features: Tensor
    grid: tuple[int, int, int]
    extras: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchGridRule:
    """How frames become patches. `min_pixels` and `max_pixels`: of one frame as it is resized."""

    patch_px: int = PATCH_PX
    frames: int = FRAMES
    merge: int = MERGE
    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    resample: int = BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} and max_pixels {self.max_pixels}: the first must not be more")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, min_pixels: int | None = None,
                    max_pixels: int | None = None) -> PatchGridRule:
        """The rule of a `preprocessor_config.json`; given numbers of pixels take the place of its own."""
        keys = {k: v for k, v in config.items() if v is not None}
        size = keys.get("size") or {}
        least = min_pixels or keys.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or MIN_PIXELS
        most = max_pixels or keys.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or MAX_PIXELS
        normal = keys.get("do_normalize", True)
        return cls(patch_px=keys.get("patch_size", PATCH_PX), frames=keys.get("temporal_patch_size", FRAMES),
                   merge=keys.get("merge_size", MERGE), min_pixels=min(least, most), max_pixels=most,
                   resample=int(keys.get("resample", BICUBIC)),
                   scale=float(keys.get("rescale_factor", 1 / 255)) if keys.get("do_rescale", True) else 1.0,
                   mean=tuple(keys.get("image_mean", CLIP_MEAN)) if normal else (0.0, 0.0, 0.0),
                   std=tuple(keys.get("image_std", CLIP_STD)) if normal else (1.0, 1.0, 1.0))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """A frame's height and width after resizing: whole merged patches, about as wide as tall as before, and within
        the numbers of pixels. Raises ValueError for a picture that is too narrow."""
        if max(height, width) > MOST_NARROW * min(height, width):
            raise ValueError(f"a picture of {height} x {width} pixels is more than {MOST_NARROW} times as long as it is "
                             "wide")
        unit = self.patch_px * self.merge
        tall, wide = round(height / unit) * unit, round(width / unit) * unit
        if tall * wide > self.max_pixels:
            by = math.sqrt(height * width / self.max_pixels)
            tall, wide = (max(unit, math.floor(side / by / unit) * unit) for side in (height, width))
        elif tall * wide < self.min_pixels:
            by = math.sqrt(self.min_pixels / (height * width))
            tall, wide = (math.ceil(side * by / unit) * unit for side in (height, width))
        return tall, wide

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> Patches:
        """uint8 (F, H, W, 3), or as many (H, W, 3) of one size -> Patches; the last frame stands for those missing to a
        whole patch of time."""
        given = checked(frames)
        if len({frame.shape for frame in given}) > 1:
            raise ValueError(f"frames of one window have different sizes: {sorted({f.shape[:2] for f in given})}")
        tall, wide = self.size(*given[0].shape[:2])
        pixels = normalise(np.stack([resize(f, (tall, wide), self.resample) for f in given]),
                           levels(self.scale, self.mean, self.std))
        if rest := -len(pixels) % self.frames:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], rest, 0)])
        side, merge = self.patch_px, self.merge
        times, down, across = len(pixels) // self.frames, tall // side, wide // side
        cut = pixels.reshape(times, self.frames, 3, down // merge, merge, side, across // merge, merge, side)
        cut = cut.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)  # merged neighbours lie together
        return Patches(torch.from_numpy(np.ascontiguousarray(cut).reshape(times * down * across, -1)),
                       (times, down, across))


class QwenVision(nn.Module):
    """Patches -> GridFeatures, by transformers' own tower. Tensors: those of the tower, behind `visual.`."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """vision: the checkpoint's `vision_config`, whose model_type says which tower. preprocessor: its
        preprocessor_config.json. min_pixels, max_pixels: of a frame, in place of the preprocessor's. per_second: how far
        positions are on after a second of video; 0: time is told by text around each patch of time."""

        vision: Mapping[str, Any] = field(default_factory=dict)
        preprocessor: Mapping[str, Any] = field(default_factory=dict)
        min_pixels: int | None = None
        max_pixels: int | None = None
        per_second: float = 0.0
        attention: str = "sdpa"

        def __post_init__(self) -> None:
            if self.vision.get("model_type") not in TOWERS:
                raise ValueError(f"vision model_type {self.vision.get('model_type')!r} is none of {', '.join(TOWERS)}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        known, tower = TOWERS[config.vision["model_type"]]()
        sizes = known(**{k: v for k, v in config.vision.items() if k not in ("model_type", "_attn_implementation")})
        self.width: int = sizes.out_hidden_size
        self.merge: int = sizes.spatial_merge_size
        self.rule = PatchGridRule.from_config(config.preprocessor, min_pixels=config.min_pixels,
                                              max_pixels=config.max_pixels)
        for name, ours, theirs in (("patch_size", self.rule.patch_px, sizes.patch_size),
                                   ("merge_size", self.rule.merge, self.merge),
                                   ("temporal_patch_size", self.rule.frames, sizes.temporal_patch_size)):
            if ours != theirs:
                raise ValueError(f"the preprocessor's {name} is {ours}, the tower's {theirs}")
        self.visual = tower._from_config(sizes, attn_implementation=config.attention)

    @classmethod
    def from_pretrained_config(cls, config: Mapping[str, Any], **options: Any) -> QwenVision:
        """A checkpoint's config.json, or its vision part -> the tower, its weights not yet filled in."""
        return cls(cls.Config(vision=dict(config.get("vision_config", config)), **options))

    def prepare(self, frames: np.ndarray | Sequence[np.ndarray]) -> Patches:
        """uint8 frames (F, H, W, 3) at full resolution -> what `forward` takes."""
        return self.rule(frames)

    def forward(self, patches: Patches) -> GridFeatures:
        weight = next(self.parameters())
        grid = torch.tensor([patches.grid], device=weight.device)
        out = self.visual(patches.pixels.to(weight.device, weight.dtype), grid_thw=grid, return_dict=True)
        deeper = getattr(out, "deepstack_features", None)
        times, down, across = patches.grid
        return GridFeatures(out.pooler_output, (times, down // self.merge, across // self.merge),
                            torch.stack(list(deeper)) if deeper else None)


    @torch.inference_mode()
    def perceive(self, signal: Any, window_s: float) -> dict[str, Any]:
        """A window of pictures (`data` uint8 (F, H, W, 3), `rate_hz`) -> embeds (N, D), positions (N, 3) in time, height
        and width behind the window's beginning, what the window takes of them, and extras (L, N, D), as numpy arrays.

        Raises ValueError for a window of more patches of time than the positions can tell apart.
        """
        made = self(self.prepare(list(signal.data)))
        times, down, across = made.grid
        per_second = self.config.per_second
        if times > 1 and not per_second:
            raise ValueError(f"a window of {len(signal.data)} frames has {times} patches of time, this model's have text "
                             f"between them: let window_s x rate_hz be {self.rule.frames}")
        starts = np.floor(np.arange(times) * (self.rule.frames / signal.rate_hz) * per_second)
        grid = np.meshgrid(starts, np.arange(down), np.arange(across), indexing="ij")
        return {"embeds": made.features.float().cpu().numpy(),
                "positions": np.stack(grid, -1).reshape(-1, 3).astype(np.int32),
                "takes": (round(window_s * per_second), 0, 0),
                "extras": None if made.extras is None else made.extras.float().cpu().numpy()}


def _qwen2_5_vl() -> tuple[type, type]:
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    return Qwen2_5_VLVisionConfig, Qwen2_5_VisionTransformerPretrainedModel


def _qwen3_vl() -> tuple[type, type]:
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    return Qwen3VLVisionConfig, Qwen3VLVisionModel


def _qwen2_5_omni() -> tuple[type, type]:
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniVisionEncoderConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniVisionEncoder

    return Qwen2_5OmniVisionEncoderConfig, Qwen2_5OmniVisionEncoder


TOWERS = {"qwen2_5_vl": _qwen2_5_vl, "qwen2_5_vl_vision": _qwen2_5_vl, "qwen3_vl": _qwen3_vl,
          "qwen3_vl_vision": _qwen3_vl, "qwen2_5_omni_vision_encoder": _qwen2_5_omni}
