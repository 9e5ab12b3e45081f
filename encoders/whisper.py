"""Whisper's encoder, through transformers: 30 s of sound -> 1500 features, 50 a second.

Radford et al. 2022, arXiv 2212.04356. A window of 1 s is its mel frames followed by those of 29 s of silence; with
`window_s: 1` the first 50 of the 1500 features are kept. With `pad_s: 2` only 2 s are encoded, at their own first
positions: fifteen times less work, other numbers than the published model's, near to them where it ignores silence.
Shapes: B clips, M mel bins, F mel frames, P = F / 2 features, D width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from encoders.audio_tower import AudioTower, AudioTowerConfig, first_output, one_by_one_on_cpu
from encoders.mel import MelRule
from encoders.tower import hidden_index

DEFAULTS = {"feature_size": 80, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}


class WhisperTower(AudioTower):
    """Log-mel (B, M, F) -> features (B, P, D), None. Tensors: `encoder.*`, in whole models `model.encoder.*`."""

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__(config)
        if config.joint or config.select == "pooled":
            raise ValueError("Whisper's encoder neither pools nor shares a space with text: select sequence, no joint")
        known = WhisperConfig.from_dict(dict(config.audio), attn_implementation=config.attention)
        keys = {**DEFAULTS, "feature_size": known.num_mel_bins, **config.preprocessor}
        if keys["feature_size"] != known.num_mel_bins:
            raise ValueError(f"the feature extractor makes {keys['feature_size']} mel bins, the encoder takes "
                             f"{known.num_mel_bins}")
        self.width, self.rate_hz, self.longest_s = known.d_model, keys["sampling_rate"], keys["chunk_length"]
        self.encoder = WhisperEncoder._from_config(known)
        self.hop = keys["hop_length"]
        self.positions = known.max_source_positions
        if config.pad_s is not None and config.pad_s > self.longest_s:
            raise ValueError(f"pad_s {config.pad_s:g} is more than the {self.longest_s} s of the encoder")
        self.rule = MelRule(rate_hz=self.rate_hz, frame=keys["n_fft"], fft=keys["n_fft"], hop=self.hop,
                            bins=keys["feature_size"], high_hz=8000.0, double=False, backend=config.backend)
        if config.layer is not None:
            hidden_index(config.layer, len(self.encoder.layers))
        self._compile(self.encoder.layers)

    def prepare(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        seconds = self.longest_s if self.config.pad_s is None else self.config.pad_s
        steps = round(seconds * self.rate_hz) // self.hop // 2
        x = self.fill(self.samples(wave, rate_hz), steps * 2 * self.hop)
        mel = self.rule(x)[:, :-1].transpose(1, 2)  # the last frame is half beyond the clip
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8)
        return (mel + 4) / 4

    def steps(self, seconds: float) -> int:
        return math.ceil(seconds * self.rate_hz / self.hop / 2)

    @one_by_one_on_cpu
    def forward(self, mel: Tensor) -> tuple[Tensor, None]:
        body = self.encoder
        if mel.shape[2] % 2 or mel.shape[2] // 2 > self.positions:
            raise ValueError(f"{mel.shape[2]} mel frames: an even number, at most {2 * self.positions}")
        x = nn.functional.gelu(body.conv1(mel.to(body.conv1.weight.dtype)))
        x = nn.functional.gelu(body.conv2(x)).transpose(1, 2)
        x = x + body.embed_positions.weight[: x.shape[1]]
        layer = self.config.layer
        for block in body.layers[: None if layer is None else hidden_index(layer, len(body.layers))]:
            x = first_output(block(x, None))
        x = body.layer_norm(x) if layer is None else x
        return x[:, : self._kept(x.shape[1])], None
