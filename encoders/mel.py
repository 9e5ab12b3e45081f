"""Samples -> log-mel frames, exact to the published feature extractors; and one sampling rate into another.

All of it is batched torch, on whatever device the samples are. `torchaudio` (the `cuda` extra) can compute the same:
`backend="torchaudio"`. Source of the filter banks: the HTK book, Slaney's Auditory Toolbox (1998) and Kaldi's fbank.
Shapes: B clips, N samples, F frames, M mel bins, K bins of the spectrum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SCALES = ("htk", "kaldi", "slaney")
LOGS = ("ln", "log10", "dB")
BACKENDS = ("torch", "torchaudio")


@dataclass(frozen=True, kw_only=True, slots=True)
class MelRule:
    """Frames of `frame` samples every `hop`, a power spectrum of `fft` points, `bins` triangles from low_hz to high_hz.

    area: each triangle has the same area (Slaney's), else the same height. kaldi: frames lie within the samples, have
    their mean taken off and their highs raised, the window is symmetric and triangles are straight on the mel axis;
    otherwise frames are centred, the ends reflected. floor: what a bin has at least, before the logarithm.
    double: compute in float64, as references in numpy do.
    """

    rate_hz: int = 16000
    frame: int = 400
    hop: int = 160
    fft: int = 400
    bins: int = 80
    low_hz: float = 0.0
    high_hz: float = 8000.0
    scale: str = "slaney"
    area: bool = True
    kaldi: bool = False
    preemphasis: float = 0.0
    floor: float = 1e-10
    log: str = "log10"
    double: bool = True
    backend: str = "torch"

    def __post_init__(self) -> None:
        for name, value, known in (("scale", self.scale, SCALES), ("log", self.log, LOGS),
                                   ("backend", self.backend, BACKENDS)):
            if value not in known:
                raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")
        if not 1 <= self.hop or not 2 <= self.frame <= self.fft:
            raise ValueError(f"hop {self.hop} must be at least 1, and frame {self.frame} from 2 to fft {self.fft}")
        if not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError(f"low_hz {self.low_hz} and high_hz {self.high_hz} must rise within half of {self.rate_hz} Hz")

    def frames(self, samples: int) -> int:
        """How many frames so many samples make."""
        spare = samples - self.frame if self.kaldi else samples
        return 0 if spare < 0 else 1 + spare // self.hop

    def __call__(self, samples: Tensor) -> Tensor:
        """(B, N) -> log-mel float32 (B, F, M). Raises ValueError for samples too few for one frame."""
        if samples.dim() != 2:
            raise ValueError(f"samples are (B, N), found {tuple(samples.shape)}")
        least = self.frame if self.kaldi else self.fft // 2 + 1  # what can be reflected
        if samples.shape[1] < least:
            raise ValueError(f"{samples.shape[1]} samples are less than one frame, {least}")
        if self.backend == "torchaudio":
            return _torchaudio_mel(self, samples.float())
        if samples.device.type == "cpu":  # a clip's spectrum at a time: a batch's does not fit the caches
            return torch.cat([self._mel(clip) for clip in samples.split(1)])
        return self._mel(samples)

    def _mel(self, samples: Tensor) -> Tensor:
        x = samples.to(torch.float64 if self.double else torch.float32)
        spectrum = self._kaldi_spectrum(x) if self.kaldi else self._centred_spectrum(x)
        power = spectrum.real.square() + spectrum.imag.square()  # no root to take and undo, as of its magnitude
        mel = filter_bank(self).to(power).T @ power  # bins across all frames: what stft puts out stays where it is
        return self._log(mel.clamp_(min=self.floor)).float().transpose(1, 2)

    def _centred_spectrum(self, x: Tensor) -> Tensor:
        """Complex (B, K, F)."""
        window = torch.hann_window(self.frame, dtype=x.dtype, device=x.device)
        return torch.stft(x, self.fft, self.hop, self.frame, window, return_complex=True)

    def _kaldi_spectrum(self, x: Tensor) -> Tensor:
        """Complex (B, K, F)."""
        frames = x.unfold(1, self.frame, self.hop)
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], 2)  # the first sample is its own predecessor
        frames = frames - self.preemphasis * before
        window = torch.hann_window(self.frame, periodic=False, dtype=x.dtype, device=x.device)
        return torch.fft.rfft(frames * window, self.fft).transpose(1, 2)

    def _log(self, power: Tensor) -> Tensor:
        if self.log == "ln":
            return power.log()
        return power.log10() * (10.0 if self.log == "dB" else 1.0)


def to_mel(hz: np.ndarray | float, scale: str) -> np.ndarray:
    """Frequency in Hz -> mel. Slaney: linear up to 1 kHz (15 mel), then 27 mel for every factor of 6.4."""
    hz = np.asarray(hz, np.float64)
    if scale == "slaney":
        above = 15 + np.log(np.maximum(hz, 1e-9) / 1000) * (27 / math.log(6.4))
        return np.where(hz < 1000, hz * 3 / 200, above)
    return 2595 * np.log10(1 + hz / 700) if scale == "htk" else 1127 * np.log(1 + hz / 700)


def to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """The inverse of `to_mel`."""
    if scale == "slaney":
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * (math.log(6.4) / 27)))
    return 700 * (10 ** (mel / 2595) - 1) if scale == "htk" else 700 * (np.exp(mel / 1127) - 1)


@lru_cache(maxsize=8)
def filter_bank(rule: MelRule) -> Tensor:
    """The triangles of a rule, float64 (K, M)."""
    ends = to_mel(np.array([rule.low_hz, rule.high_hz]), rule.scale)
    corners = np.linspace(ends[0], ends[1], rule.bins + 2)
    at = np.linspace(0, rule.rate_hz / 2, rule.fft // 2 + 1)
    in_hz = to_hz(corners, rule.scale)
    at, corners = (to_mel(at, rule.scale), corners) if rule.kaldi else (at, in_hz)
    rising = (at[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - at[:, None]) / (corners[2:] - corners[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(bank * (2 / (in_hz[2:] - in_hz[:-2])) if rule.area else bank)


def resample(samples: Tensor, from_hz: int, to_hz: int, *, backend: str = "torch") -> Tensor:
    """(B, N) at from_hz -> (B, ceil(N * to_hz / from_hz)) at to_hz.

    A sinc of six zero crossings under a squared cosine, cut off at .99 of the lower rate's band: torchaudio's default
    (J. O. Smith, Digital Audio Resampling). Output sample m is at the media time of m / to_hz.
    """
    if min(from_hz, to_hz) < 1 or int(from_hz) != from_hz or int(to_hz) != to_hz:
        raise ValueError(f"rates are whole numbers of Hz, at least 1; found {from_hz} and {to_hz}")
    if from_hz == to_hz:
        return samples
    if backend == "torchaudio":
        return _torchaudio().functional.resample(samples, from_hz, to_hz)
    common = math.gcd(from_hz, to_hz)
    step, phases = from_hz // common, to_hz // common
    kernel, reach = _sinc(step, phases)
    padded = nn.functional.pad(samples, (reach, reach + step))
    out = nn.functional.conv1d(padded[:, None], kernel.to(samples)[:, None], stride=step)
    return out.transpose(1, 2).flatten(1)[:, : math.ceil(samples.shape[1] * phases / step)]


@lru_cache(maxsize=8)
def _sinc(step: int, phases: int, crossings: int = 6, rolloff: float = 0.99) -> tuple[Tensor, int]:
    """Kernels (phases, taps), float64, of which phase p gives every output sample p, p + phases, ...; and their reach."""
    band = min(step, phases) * rolloff
    reach = math.ceil(crossings * step / band)
    taps = torch.arange(-reach, reach + step, dtype=torch.float64) / step
    t = ((taps[None] - torch.arange(phases, dtype=torch.float64)[:, None] / phases) * band).clamp(-crossings, crossings)
    window = torch.cos(t * math.pi / crossings / 2) ** 2
    return torch.sinc(t) * window * (band / step), reach


def _torchaudio() -> Any:
    """torchaudio, with what is used of it. Raises ImportError that says how to get it."""
    try:
        import torchaudio
        import torchaudio.compliance.kaldi
        import torchaudio.functional
    except (ImportError, OSError) as error:
        raise ImportError(f"torchaudio cannot be imported ({error}); it wants the CUDA build of torch: pip install "
                          "'anymodal[cuda]', or leave the backend at torch") from error
    return torchaudio


def _torchaudio_mel(rule: MelRule, samples: Tensor) -> Tensor:
    audio = _torchaudio()
    if rule.kaldi:
        mel = torch.stack([audio.compliance.kaldi.fbank(
            row[None], sample_frequency=rule.rate_hz, window_type="hanning", num_mel_bins=rule.bins, dither=0.0,
            frame_length=1000 * rule.frame / rule.rate_hz, frame_shift=1000 * rule.hop / rule.rate_hz,
            low_freq=rule.low_hz, high_freq=rule.high_hz, preemphasis_coefficient=rule.preemphasis) for row in samples])
        return mel if rule.log == "ln" else rule._log(mel.exp())
    bank = audio.functional.melscale_fbanks(rule.fft // 2 + 1, rule.low_hz, rule.high_hz, rule.bins, rule.rate_hz,
                                            "slaney" if rule.area else None, rule.scale).to(samples.device)
    power = audio.functional.spectrogram(samples, 0, torch.hann_window(rule.frame, device=samples.device), rule.fft,
                                         rule.hop, rule.frame, 2.0, False)
    return rule._log((power.transpose(1, 2) @ bank).clamp(min=rule.floor))
