"""Signals -> ImageBind's inputs, as its published preprocessing is described; where none was published, our choice, said.

Shapes: B items, S clips of an item, T frames or rows, H W pixels, N samples, M mel bins, F mel frames, L ids.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.audio_spectrogram import kaldi_fbank
from encoders.mel import resample
from encoders.preprocess import BICUBIC, CLIP_MEAN, CLIP_STD, checked, levels, normalise, resize, short_side

MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")
MEL_MEAN, MEL_STD = -4.268, 9.138  # AudioSet's, the spread doubled, as AST has it
TEXT_IDS, TEXT_START, TEXT_END = 77, 49406, 49407  # CLIP's


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """How signals are cut into clips and scaled; the defaults are the published ones.

    clips: of a film 5, of sound 3, evenly spaced from its beginning to its end; shorter items give the same clip so often.
    crops: of a film, along its longer side; 1 is the middle alone. depth_mean, depth_std: of disparity; no loader was
    published, these are what users report. thermal_mean and _std likewise: unpublished, no change by default.
    level_scale, level_offset: of depth or thermal pictures whose pixels are integers: value = level * scale + offset.
    imu_s: what imu_rows last; rows of other rates are interpolated, shorter windows hold their last reading.
    """

    image_px: int = 224
    clip_s: float = 2.0
    clips: int | None = None
    clip_frames: int = 2
    crops: int = 3
    rate_hz: int = 16000
    mel_bins: int = 128
    mel_frames: int = 204
    depth_mean: float = 0.0418
    depth_std: float = 0.0295
    thermal_mean: float = 0.0
    thermal_std: float = 1.0
    level_scale: float = 1 / 65535
    level_offset: float = 0.0
    imu_rows: int = 2000
    imu_s: float = 5.0
    backend: str = "torch"

    def __post_init__(self) -> None:
        if self.crops not in (1, 3):
            raise ValueError(f"crops {self.crops}: 3 along the longer side, or 1 in the middle")
        if self.clip_s <= 0 or self.imu_s <= 0 or (self.clips is not None and self.clips < 1):
            raise ValueError(f"clip_s {self.clip_s}, imu_s {self.imu_s} and clips {self.clips} must be more than 0")
        if not (self.depth_std and self.thermal_std):
            raise ValueError("depth_std and thermal_std divide: they must not be 0")

    def prepare(self, modality: str, signals: Any, rate_hz: float | None = None) -> Tensor:
        """Signals of a modality -> the encoder's input. Raises ValueError for signals of another shape."""
        if modality == "vision":
            is_film = isinstance(signals, np.ndarray) and signals.ndim == 5
            return self.films(signals, _rate(rate_hz, "frames")) if is_film else self.pictures(signals)
        if modality == "audio":
            return self.sound(signals, _rate(rate_hz, "samples"))
        if modality == "imu":
            return self.imu(signals, _rate(rate_hz, "rows"))
        if modality == "text":
            raise ValueError("texts become ids by `text_ids`, with CLIP's tokenizer")
        return self.measured(modality, signals)

    def pictures(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 (B, H, W, 3), or a list of (H, W, 3) -> (B, 3, px, px): shorter side scaled, the middle, CLIP's colours."""
        shaped = []
        for frame in checked(frames):
            frame = resize(frame, short_side(frame.shape[:2], self.image_px), BICUBIC)
            top, left = (round((n - self.image_px) / 2) for n in frame.shape[:2])
            shaped.append(frame[top : top + self.image_px, left : left + self.image_px])
        return torch.from_numpy(normalise(np.stack(shaped), levels(1 / 255, CLIP_MEAN, CLIP_STD)))

    def films(self, frames: np.ndarray, rate_hz: float) -> Tensor:
        """uint8 (B, T, H, W, 3) at rate_hz -> (B, S, 3, clip_frames, px, px), S = clips * crops, crop by crop of a clip."""
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[4] != 3 or not frames.size:
            raise ValueError(f"films are uint8 (B, T, H, W, 3), found {frames.dtype} {frames.shape}")
        count = frames.shape[1]
        mean, std = (torch.tensor(c).view(1, 3, 1, 1, 1) for c in (CLIP_MEAN, CLIP_STD))
        out = []
        for start, end in self.spans(count / rate_hz, self.clips or 5):
            first = min(math.ceil(start * rate_hz - 1e-6), count - 1)
            last = max(first, min(math.ceil(end * rate_hz - 1e-6), count) - 1)
            chosen = np.linspace(first, last, self.clip_frames).astype(int)
            clip = torch.from_numpy(frames[:, chosen]).permute(0, 4, 1, 2, 3).float() / 255
            clip = (self._scaled(clip.flatten(0, 1)).unflatten(0, (len(frames), 3)) - mean) / std
            out.extend(self._crops(clip))
        return torch.stack(out, 1)

    def sound(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        """float (B, N) at rate_hz -> (B, S, 1, M, F): each clip without its mean, filled up with empty frames."""
        x = torch.as_tensor(wave)
        if x.dim() != 2 or not x.numel() or not x.is_floating_point():
            raise ValueError(f"samples are mono float (B, N), found {x.dtype} {tuple(x.shape)}")
        x = resample(x.float(), int(rate_hz), self.rate_hz, backend=self.backend) if rate_hz != self.rate_hz else x.float()
        rule = kaldi_fbank(self.rate_hz, self.mel_bins, self.backend)
        out = []
        for start, end in self.spans(x.shape[1] / self.rate_hz, self.clips or 3):
            clip = x[:, int(start * self.rate_hz) : int(end * self.rate_hz)]
            mel = rule(clip - clip.mean(1, keepdim=True))[:, : self.mel_frames]
            mel = nn.functional.pad(mel, (0, 0, 0, self.mel_frames - mel.shape[1]))
            out.append(((mel - MEL_MEAN) / MEL_STD).transpose(1, 2)[:, None])
        return torch.stack(out, 1)

    def measured(self, modality: str, pictures: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """Depth (disparity) or thermal pictures (B, H, W[, 1]), values or integer levels -> (B, 1, px, px): shorter side
        scaled, the middle."""
        found = np.stack(list(pictures)) if len(pictures) else np.zeros(0)
        x = found[..., 0] if found.ndim == 4 and found.shape[3] == 1 else found
        if x.ndim != 3 or not x.size or x.dtype.kind not in "fiu":
            raise ValueError(f"{modality} pictures are (B, H, W) values or levels, found {found.dtype} {found.shape}")
        values = x if x.dtype.kind == "f" else x * self.level_scale + self.level_offset
        x = self._scaled(torch.from_numpy(np.ascontiguousarray(values, np.float32))[:, None])
        top, left = (round((n - self.image_px) / 2) for n in x.shape[2:])
        x = x[:, :, top : top + self.image_px, left : left + self.image_px]
        mean, std = getattr(self, f"{modality}_mean"), getattr(self, f"{modality}_std")
        return (x - mean) / std

    def imu(self, rows: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        """Accelerometer and gyroscope (B, T, 6) at rate_hz -> (B, 6, imu_rows)."""
        x = torch.as_tensor(rows)
        if x.dim() != 3 or x.shape[2] != 6 or not x.numel() or not x.is_floating_point():
            raise ValueError(f"rows are float (B, T, 6), found {x.dtype} {tuple(x.shape)}")
        at = torch.arange(self.imu_rows) * (self.imu_s / self.imu_rows * rate_hz)
        at = at.clamp(max=x.shape[1] - 1)
        low = at.long()
        share = (at - low)[:, None]
        values = x[:, low] * (1 - share) + x[:, (low + 1).clamp(max=x.shape[1] - 1)] * share
        return values.transpose(1, 2).float()

    def spans(self, seconds: float, clips: int) -> list[tuple[float, float]]:
        """When each clip begins and ends: evenly spaced, the first at the beginning and the last at the end."""
        step = max(seconds - self.clip_s, 0.0) / max(clips - 1, 1)
        return [(i * step, i * step + self.clip_s) for i in range(clips)]

    def _scaled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) with the shorter side image_px, bilinear."""
        size = short_side(x.shape[2:], self.image_px)
        return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def _crops(self, clip: Tensor) -> list[Tensor]:
        """(B, 3, t, H, W) -> squares from the beginning, the middle and the end of the longer side."""
        px, spare = self.image_px, max(clip.shape[3:]) - self.image_px
        offsets = (0, math.ceil(spare / 2), spare) if self.crops == 3 else (math.ceil(spare / 2),)
        axis = 3 if clip.shape[3] > clip.shape[4] else 4
        return [clip.narrow(axis, offset, px) for offset in offsets]


def text_ids(texts: Sequence[str], encode: Callable[[str], list[int]], *, length: int = TEXT_IDS,
             start: int = TEXT_START, end: int = TEXT_END) -> Tensor:
    """Texts -> ids (B, length): start, the text's own, end, zeros. Long texts are cut before their end mark.

    encode: a text, entities unescaped and white space single, to CLIP's ids without marks.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError("texts are a list of at least one text")
    out = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in enumerate(texts):
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        ids = [start, *encode(clean)[: length - 2], end]
        out[row, : len(ids)] = torch.tensor(ids)
    return out


def _rate(rate_hz: float | None, what: str) -> float:
    if rate_hz is None or not rate_hz > 0:
        raise ValueError(f"{what} need their rate_hz, found {rate_hz!r}")
    return rate_hz
