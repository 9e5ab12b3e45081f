"""Perception Encoder Audio (PE-Audio, and the audio part of PE-AV), through transformers: 48 kHz samples -> 25 features/s.

Meta 2025, facebook/pe-av-*. Any length goes: a window is encoded as it is, filled up by its own reflection to a
whole number of hops of 1920 samples. A window stands alone: its features are not those that the same second has within a
longer clip, since the encoder looks at the whole clip both ways.
Shapes: B clips, N samples, P = N / 1920 features, D width, E joint width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PeAudioConfig, PeAudioEncoder, PeAudioEncoderConfig
from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead

from encoders.audio_tower import AudioTower, AudioTowerConfig, audio_part, first_output
from encoders.tower import hidden_index

DEFAULTS = {"sampling_rate": 48000, "hop_length": 1920, "feature_size": 1}


class PeAudioTower(AudioTower):
    """Samples (B, 1, N) -> features (B, P, D), unit joint embeddings (B, E) or None.

    Tensors: `audio_encoder.*` and, with `joint`, `audio_head.*`, as published; below `audio_model.` in PE-AV.
    """

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__(config)
        if config.pad_s is not None:
            raise ValueError("PE-Audio takes windows of any length as they are: pad_s has no meaning")
        known = PeAudioEncoderConfig.from_dict(audio_part(config.audio), attn_implementation=config.attention)
        keys = {**DEFAULTS, **config.preprocessor}
        if keys["feature_size"] != 1:
            raise ValueError(f"feature_size {keys['feature_size']}: only mono sound is supported")
        self.rate_hz, self.hop, self.width = keys["sampling_rate"], keys["hop_length"], known.hidden_size
        if self.hop != known.dac_config.hop_length:
            raise ValueError(f"the feature extractor's hop_length is {self.hop}, the encoder's "
                             f"{known.dac_config.hop_length}")
        self.audio_encoder = PeAudioEncoder._from_config(known)
        if config.joint:
            whole = config.audio
            if "audio_config" in whole.get("audio_config", {}):  # PE-AV has a whole PE-Audio in it
                whole = whole["audio_config"]
            if "text_config" not in whole:
                raise ValueError("joint needs the checkpoint's whole config.json: the text's width is the joint width")
            joint = PeAudioConfig.from_dict(dict(whole)).text_config.hidden_size
            self.audio_head = PeAudioContrastiveHead(known.hidden_size, joint)
        if config.layer is not None:
            hidden_index(config.layer, len(self.audio_encoder.layers))
        self._compile(self.audio_encoder.layers)

    def prepare(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        x = self.samples(wave, rate_hz)
        missing = -x.shape[1] % self.hop
        if missing >= x.shape[1]:  # too short to be reflected
            raise ValueError(f"{x.shape[1]} samples are too few: at least {self.hop // 2 + 1}")
        return nn.functional.pad(x[:, None], (0, missing), mode="reflect") if missing else x[:, None]

    def steps(self, seconds: float) -> int:
        return math.ceil(seconds * self.rate_hz / self.hop - 1e-9)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        body, layer = self.audio_encoder, self.config.layer
        x, _ = body.embedder(samples.to(body.output.weight.dtype))
        x, _ = body.patch_embedder(x)
        turn = body.rotary_emb(x, torch.arange(x.shape[1], device=x.device)[None])
        wanted = len(body.layers) if layer is None else hidden_index(layer, len(body.layers))
        chosen = x
        for done, block in enumerate(body.layers if self.config.joint else body.layers[:wanted], start=1):
            x = first_output(block(x, attention_mask=None, position_embeddings=turn))
            chosen = x if done == wanted else chosen
        out = body.output(body.norm(x)) if layer is None or self.config.joint else None
        joint = nn.functional.normalize(self.audio_head(out[:, 0]).float(), dim=-1) if self.config.joint else None
        features = out if layer is None else chosen
        if self.config.select == "pooled":
            return out[:, :1], joint
        return features[:, 1 : 1 + self._kept(features.shape[1] - 1)], joint
