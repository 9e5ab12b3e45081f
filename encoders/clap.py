"""CLAP's audio tower (HTSAT), through transformers: 10 s of sound at 48 kHz -> 32 steps of 2 bands, and a joint embedding.

Wu et al. 2023, arXiv 2211.06687. A shorter window is filled up as the published extractor says: by default repeated as
often as it fits, and then silent. With `window_s: 1` the first 4 of the 32 steps are kept, of 0.3125 s each.
The published extractor takes clips beyond 10 s at random places; here they are refused. Of a checkpoint with fusion every
clip goes the way of a long one, as the extractor has it for a clip alone (in a batch it draws one by lot).
Shapes: B clips, C views of the clip (4 with fusion, else 1), F mel frames, M mel bins, P features, D width, E joint width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ClapAudioConfig, ClapAudioModel
from transformers.models.clap.modeling_clap import ClapProjectionLayer

from encoders.audio_tower import AudioTower, AudioTowerConfig, audio_part
from encoders.mel import MelRule

DEFAULTS = {"feature_size": 64, "sampling_rate": 48000, "hop_length": 480, "max_length_s": 10, "fft_window_size": 1024,
            "frequency_min": 0, "frequency_max": 14000, "truncation": "fusion", "padding": "repeatpad"}
PADDINGS = ("repeatpad", "repeat", "pad")


class ClapTower(AudioTower):
    """Mel frames (B, C, F, M) -> features (B, P, D), the bands of step after step; unit joint embeddings (B, E) or None.

    Tensors: `audio_model.*` and, with `joint`, `audio_projection.*`, as published.
    """

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__(config)
        if config.layer is not None:
            raise ValueError("CLAP's stages differ in resolution: only its own output can be used, not `layer`")
        if config.pad_s is not None:
            raise ValueError("CLAP stretches its whole clip to a square: pad_s cannot be chosen")
        known = ClapAudioConfig.from_dict(audio_part(config.audio))
        known.projection_dim = config.audio.get("projection_dim", known.projection_dim)  # a whole CLAP's is at the top
        keys = self.keys = {**DEFAULTS, **config.preprocessor}
        if keys["padding"] not in PADDINGS:
            raise ValueError(f"padding {keys['padding']!r} is none of {', '.join(PADDINGS)}")
        if (keys["truncation"] == "fusion") != known.enable_fusion:
            raise ValueError(f"the feature extractor's truncation is {keys['truncation']!r}, and the encoder's "
                             f"enable_fusion {known.enable_fusion}: they belong to different checkpoints")
        self.fusion, self.rate_hz = known.enable_fusion, keys["sampling_rate"]
        self.longest_s = keys["max_length_s"]
        # the filter bank was torchaudio's in training with fusion and librosa's without
        self.rule = MelRule(rate_hz=self.rate_hz, frame=keys["fft_window_size"], fft=keys["fft_window_size"],
                            hop=keys["hop_length"], bins=keys["feature_size"], low_hz=keys["frequency_min"],
                            high_hz=keys["frequency_max"], scale="htk" if self.fusion else "slaney",
                            area=not self.fusion, log="dB", backend=config.backend)
        self.audio_model = ClapAudioModel._from_config(known)
        body = self.audio_model.audio_encoder
        self.width = body.num_features
        self.columns = body.input_resolutions[-1][1] * body.freq_ratio  # steps of the whole clip
        if config.joint:
            self.audio_projection = ClapProjectionLayer(known)
        self._compile(self.audio_model.audio_encoder.layers)

    def prepare(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        x, samples = self.samples(wave, rate_hz), self.longest_s * self.rate_hz
        times = samples // x.shape[1]
        if times > 1 and self.keys["padding"] != "pad":
            x = x.repeat(1, times)
        if self.keys["padding"] == "repeat" and x.shape[1] < samples:
            x = torch.cat([x, x[:, : samples - x.shape[1]]], 1)
        mel = self.rule(self.fill(x, samples))[:, None]
        return mel.expand(-1, 4, -1, -1) if self.fusion else mel

    def steps(self, seconds: float) -> int:
        return math.ceil(seconds / self.longest_s * self.columns - 1e-9)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor | None]:
        longer = torch.ones(len(mel), 1, dtype=torch.bool, device=mel.device) if self.fusion else None
        dtype = self.audio_model.audio_encoder.norm.weight.dtype
        out = self.audio_model(input_features=mel.to(dtype), is_longer=longer)
        joint = None
        if self.config.joint:
            joint = nn.functional.normalize(self.audio_projection(out.pooler_output).float(), dim=-1)
        if self.config.select == "pooled":
            return out.pooler_output[:, None], joint
        grid = out.last_hidden_state.permute(0, 3, 2, 1)  # (B, steps, bands, D)
        return grid[:, : self._kept(grid.shape[1])].flatten(1, 2), joint
