"""What the published audio encoders share: samples to their input, which hidden state, and how much of it is a window's.

They were trained on clips of a fixed length, or of any. A shorter window is filled up as the published extractor does it,
so that the numbers are the published model's for that sound followed by silence (CLAP: repeated); with `window_s` only the
steps of the window itself are kept. A window knows nothing of the ones before it.
Shapes: B clips, N samples, P features in time, D width, E joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.mel import BACKENDS, resample

SELECT = ("sequence", "pooled")


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioTowerConfig:
    """What a bundle chooses of a published audio encoder; its sizes are the checkpoint's own.

    audio: the checkpoint's config.json, or the audio part of it. preprocessor: its preprocessor_config.json.
    layer: index of a hidden state, 0 the embeddings, n what block n puts out, negative from the end, without the last norm;
    None: the model's own output. select: "sequence", or "pooled" as the model pools. joint: also project to the space
    shared with text, where the checkpoint has a projection. window_s: keep the steps of so many seconds; None: keep all.
    pad_s: fill up to so many seconds instead of the published length, where the encoder allows it: cheaper, and no longer
    the published numbers. backend: what computes mel frames and resamples, "torch" or "torchaudio".
    """

    audio: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    layer: int | None = None
    select: str = "sequence"
    joint: bool = False
    window_s: float | None = None
    pad_s: float | None = None
    attention: str = "sdpa"
    compile: bool = False
    backend: str = "torch"

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise ValueError(f"select {self.select!r} is none of {', '.join(SELECT)}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend {self.backend!r} is none of {', '.join(BACKENDS)}")
        if self.select == "pooled" and self.layer is not None:
            raise ValueError(f"the pooled output is read from the last layer, not from layer {self.layer}")
        for name in ("window_s", "pad_s"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} {value!r} must be more than 0")


class AudioTower(nn.Module):
    """What `prepare` makes of samples -> features (B, P, D), unit joint embeddings (B, E) or None."""

    Config = AudioTowerConfig
    width: int
    rate_hz: int

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained_config(cls, config: Mapping[str, Any], **options: Any) -> AudioTower:
        """A checkpoint's config -> the encoder, its weights not yet filled in. Options are those of `Config`."""
        return cls(cls.Config(audio=dict(config), **options))

    def samples(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        """Mono float samples (B, N) at rate_hz -> float32 (B, N') at the encoder's own rate.

        Raises ValueError for another shape, no samples, or samples that are not finite.
        """
        x = torch.as_tensor(np.asarray(wave) if not isinstance(wave, Tensor) else wave)
        if x.dim() != 2 or not x.numel() or not x.is_floating_point():
            raise ValueError(f"samples are mono float (B, N), found {x.dtype} {tuple(x.shape)}")
        x = x.float()
        if not torch.isfinite(x.sum(dtype=torch.float64)):  # of finite float32 it is finite; one pass
            raise ValueError("samples hold a value that is not finite")
        return resample(x, int(rate_hz), self.rate_hz, backend=self.config.backend) if rate_hz != self.rate_hz else x

    def prepare(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        """Mono float samples (B, N) at rate_hz -> the encoder's input, as its published feature extractor makes it."""
        raise NotImplementedError

    def steps(self, seconds: float) -> int:
        """How many steps of the sequence a window of so many seconds has of its own."""
        raise NotImplementedError

    def fill(self, x: Tensor, samples: int) -> Tensor:
        """Zeros after samples (B, N), up to `samples`. Raises ValueError for more than these."""
        if x.shape[1] > samples:
            raise ValueError(f"{x.shape[1] / self.rate_hz:g} s are more than the {samples / self.rate_hz:g} s that the "
                             "encoder takes at once: use shorter windows")
        return nn.functional.pad(x, (0, samples - x.shape[1]))

    def _compile(self, blocks: Iterable[nn.Module]) -> None:
        if self.config.compile:
            for block in blocks:
                block.compile(dynamic=True)

    def _kept(self, available: int) -> int:
        """How many steps of the sequence are kept."""
        return available if self.config.window_s is None else min(available, self.steps(self.config.window_s))


def audio_part(config: Mapping[str, Any], name: str = "audio_config") -> dict[str, Any]:
    """The audio sub-config of a whole model's config.json, however deep, or the config itself if it is one already."""
    while name in config:
        config = config[name]
    return dict(config)


def first_output(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a block puts out: some of them in a tuple."""
    return out[0] if isinstance(out, tuple) else out


Forward = Callable[[Any, Tensor], tuple[Tensor, None]]


def one_by_one_on_cpu(forward: Forward) -> Forward:
    """A tower's forward whose clips are so long that a batch of them fits no cache of a CPU: there each goes alone."""
    @wraps(forward)
    def each(self: Any, mel: Tensor) -> tuple[Tensor, None]:
        if mel.device.type != "cpu" or len(mel) < 2:
            return forward(self, mel)
        return torch.cat([forward(self, clip)[0] for clip in mel.split(1)]), None

    return each
