"""Log-mel audio transformer: a window of mono samples -> a sequence of features and a joint-space embedding.

An Audio Spectrogram Transformer in miniature (Gong et al. 2021, arXiv 2104.01778): each patch is a few mel frames
over the whole band. The filter bank is the HTK mel scale on a Hann-window power spectrum.
Shapes: B batch, N samples, F mel frames, M mel bins, P patches, D width, E joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.patches import PatchTransformer


def mel_filters(bins: int, fft: int, rate_hz: int, low_hz: float = 40.0) -> Tensor:
    """Triangular mel filters (M, fft // 2 + 1), HTK scale: mel = 2595 log10(1 + f / 700)."""
    def mel(f):
        return 2595 * torch.log10(1 + f / 700)

    edges = torch.linspace(mel(torch.tensor(low_hz)), mel(torch.tensor(rate_hz / 2)), bins + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    grid = torch.linspace(0, rate_hz / 2, fft // 2 + 1)
    rising = (grid - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - grid) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


class LogMelTransformer(nn.Module):
    """float samples (B, N) of one window -> features (B, P, D) and unit joint embeddings (B, E)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        rate_hz: int = 16000
        window_s: float = 1.0
        mel_bins: int = 64
        fft: int = 512
        hop: int = 320
        patch_frames: int = 2
        width: int = 128
        layers: int = 3
        heads: int = 4
        joint: int = 128

        def __post_init__(self) -> None:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if int(self.rate_hz * self.window_s) % (self.hop * self.patch_frames):
                raise ValueError(f"a window of {self.window_s} s is not a whole number of patches of "
                                 f"{self.hop * self.patch_frames} samples at {self.rate_hz} Hz")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.samples = int(config.rate_hz * config.window_s)
        patches = self.samples // (config.hop * config.patch_frames)
        self.register_buffer("filters", mel_filters(config.mel_bins, config.fft, config.rate_hz), persistent=False)
        self.register_buffer("hann", torch.hann_window(config.fft), persistent=False)
        self.body = PatchTransformer(config.mel_bins * config.patch_frames, patches, config.width, config.layers,
                                     config.heads, config.joint)

    def log_mel(self, samples: Tensor) -> Tensor:
        """(B, N) -> (B, F, M), scaled to about unit range."""
        padded = nn.functional.pad(samples.float(), (self.config.fft // 2, self.config.fft // 2))
        spectrum = torch.stft(padded, self.config.fft, self.config.hop, window=self.hann.float(), center=False,
                              return_complex=True).abs().square()
        mel = (self.filters.float() @ spectrum).transpose(1, 2)[:, : self.samples // self.config.hop]
        return (torch.log10(mel + 1e-6) + 2.0) / 2.5

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        mel = self.log_mel(samples)
        return self.body(mel.reshape(len(mel), -1, self.config.mel_bins * self.config.patch_frames))
