"""The sound tower of Qwen2.5-Omni: log-mel as Whisper's, attention within two seconds, 25 tokens a second.

The tower reads `2 * n_window` mel frames by themselves, convolutions and all, so sound that comes in pieces of whole such
stretches has the features that it has at once, given the same mel frames. The mel frames of a piece are those of the
whole but for two things: a frame at an edge sees nothing beyond it, and what is 80 dB below the loudest is cut off, of the
piece instead of the whole.
Shapes: T samples, F mel frames, M mel bins, N tokens, D width.
Source: Xu et al. 2025, arXiv 2503.20215.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.mel import MelRule, resample

LEAST = 4  # mel frames of a token
AFTER_S = 0.1  # silence behind a piece: beyond it the published extractor has silence, too


class QwenAudio(nn.Module):
    """Windows of sound -> tokens of the language model's width, by transformers' own tower. Tensors: `audio_tower.*`."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """audio: the checkpoint's `audio_config`. preprocessor: its preprocessor_config.json. per_second: how far
        positions are on after a second; a token's is one after the last."""

        audio: Mapping[str, Any] = field(default_factory=dict)
        preprocessor: Mapping[str, Any] = field(default_factory=dict)
        per_second: int = 25
        attention: str = "sdpa"

    def __init__(self, config: Config) -> None:
        from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

        super().__init__()
        self.config, keys = config, config.preprocessor
        sizes = Qwen2_5OmniAudioEncoderConfig(**{k: v for k, v in config.audio.items() if k != "model_type"})
        self.width: int = sizes.output_dim
        rate_hz = keys.get("sampling_rate", 16000)
        fft, hop = keys.get("n_fft", 400), keys.get("hop_length", 160)
        self.rule = MelRule(rate_hz=rate_hz, frame=fft, hop=hop, fft=fft, bins=sizes.num_mel_bins, high_hz=rate_hz / 2)
        self.audio_tower = Qwen2_5OmniAudioEncoder._from_config(sizes, attn_implementation=config.attention)

    def prepare(self, wave: np.ndarray, rate_hz: float) -> Tensor:
        """float32 (T,) -> log-mel (M, F), one frame for each hop begun. Raises ValueError for less than a token's worth."""
        samples = torch.from_numpy(np.ascontiguousarray(wave, np.float32))[None]
        samples = resample(samples, round(rate_hz), self.rule.rate_hz)
        count = -(-samples.shape[1] // self.rule.hop)
        if count < LEAST:
            raise ValueError(f"{samples.shape[1]} samples are too few for a token, {LEAST * self.rule.hop}")
        after = round(AFTER_S * self.rule.rate_hz)
        mel = self.rule(nn.functional.pad(samples, (0, after)))[0].T
        mel = torch.maximum(mel, mel.max() - 8)
        return ((mel + 4) / 4)[:, :count]

    def forward(self, mel: Tensor) -> Tensor:
        """(M, F) -> (N, D)."""
        weight = self.audio_tower.proj.weight
        lengths = torch.tensor([mel.shape[1]], device=weight.device)
        after, _ = self.audio_tower._get_feat_extract_output_lengths(lengths)
        return self.audio_tower(mel.to(weight.device, weight.dtype), feature_lens=lengths, aftercnn_lens=after,
                                return_dict=True).last_hidden_state

    @torch.inference_mode()
    def perceive(self, signal: Any, window_s: float) -> dict[str, Any]:
        """A window of sound -> embeds (N, D), and positions (N, 3), the same in all rows; what begins later in its window
        lies as much later."""
        begins_s = (signal.t0_s + 1e-6) % window_s
        least = math.ceil(LEAST * self.rule.hop / self.rule.rate_hz * signal.rate_hz)
        before = np.zeros(round(begins_s * signal.rate_hz), np.float32)
        after = np.zeros(max(0, least - len(before) - len(signal.data)), np.float32)  # a stream may end in a scrap
        made = self(self.prepare(np.concatenate([before, signal.data, after]), signal.rate_hz))
        places = np.repeat(np.arange(len(made), dtype=np.int32)[:, None], 3, 1)
        takes = round(window_s * self.config.per_second)
        return {"embeds": made.float().cpu().numpy(), "positions": places, "takes": (takes, takes, takes)}
