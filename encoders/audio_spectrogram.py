"""Audio Spectrogram Transformer (AST), through transformers: 10.24 s of sound -> 12 bands of 101 overlapping patches.

Gong et al. 2021, arXiv 2104.01778. Patches are 16 mel frames by 16 bins, 10 apart both ways, and run band by band, the
lowest first. A window of 1 s is 98 mel frames followed by empty ones; with `window_s: 1` the 9 patches of each band that
lie within those 98 are kept. Shapes: B clips, F mel frames, M mel bins, P features, D width.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel

from encoders.audio_tower import AudioTower, AudioTowerConfig, first_output, one_by_one_on_cpu
from encoders.mel import MelRule
from encoders.tower import hidden_index

DEFAULTS = {"sampling_rate": 16000, "num_mel_bins": 128, "max_length": 1024, "do_normalize": True, "mean": -4.2677393,
            "std": 4.5689974}
KALDI_FLOOR = 1.192092955078125e-07  # float32's epsilon


def kaldi_fbank(rate_hz: int, bins: int, backend: str = "torch") -> MelRule:
    """Kaldi's filter bank as AST and ImageBind use it: 25 ms Hann frames every 10 ms, from 20 Hz up, natural logarithm."""
    frame = rate_hz * 25 // 1000
    return MelRule(rate_hz=rate_hz, frame=frame, hop=rate_hz // 100, fft=1 << (frame - 1).bit_length(), bins=bins,
                   low_hz=20.0, high_hz=rate_hz / 2, scale="kaldi", area=False, kaldi=True, preemphasis=0.97,
                   floor=KALDI_FLOOR, log="ln", backend=backend)


class AudioSpectrogramTower(AudioTower):
    """Mel frames (B, F, M) -> features (B, P, D), None. Tensors: `model.*`; published `audio_spectrogram_transformer.*`.

    select "pooled": the mean of the class and the distillation token, (B, 1, D), which the published head reads.
    """

    renames = ((r"\bencoder\.layer\.", "layers."), (r"\battention\.attention\.query\.", "attention.q_proj."),
               (r"\battention\.attention\.key\.", "attention.k_proj."),
               (r"\battention\.attention\.value\.", "attention.v_proj."),
               (r"\battention\.output\.dense\.", "attention.o_proj."), (r"\bintermediate\.dense\.", "mlp.fc1."),
               (r"\boutput\.dense\.", "mlp.fc2."))  # of published files

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__(config)
        if config.joint:
            raise ValueError("AST shares no space with text: no joint")
        if config.pad_s is not None:
            raise ValueError("AST has a position for every patch of its whole clip: pad_s cannot be chosen")
        known = ASTConfig.from_dict(dict(config.audio), attn_implementation=config.attention)
        keys = {**DEFAULTS, "num_mel_bins": known.num_mel_bins, "max_length": known.max_length, **config.preprocessor}
        for key in ("num_mel_bins", "max_length"):
            if keys[key] != getattr(known, key):
                raise ValueError(f"the feature extractor's {key} is {keys[key]}, the encoder's {getattr(known, key)}")
        self.width, self.rate_hz = known.hidden_size, keys["sampling_rate"]
        self.patch, self.stride = known.patch_size, known.time_stride
        self.length, self.keys = known.max_length, keys
        self.rule = kaldi_fbank(self.rate_hz, keys["num_mel_bins"], config.backend)
        self.model = ASTModel._from_config(known)
        if config.layer is not None:
            hidden_index(config.layer, len(self.model.layers))
        self._compile(self.model.layers)

    def prepare(self, wave: np.ndarray | Tensor, rate_hz: float) -> Tensor:
        mel = self.rule(self.samples(wave, rate_hz))
        if mel.shape[1] > self.length:
            raise ValueError(f"{mel.shape[1]} mel frames are more than the {self.length} that the encoder takes at once: "
                             "use shorter windows")
        mel = nn.functional.pad(mel, (0, 0, 0, self.length - mel.shape[1]))
        return (mel - self.keys["mean"]) / (2 * self.keys["std"]) if self.keys["do_normalize"] else mel

    def steps(self, seconds: float) -> int:
        """Patches of one band that lie within so many seconds."""
        return max(1, (self.rule.frames(round(seconds * self.rate_hz)) - self.patch) // self.stride + 1)

    @one_by_one_on_cpu
    def forward(self, mel: Tensor) -> tuple[Tensor, None]:
        if mel.shape[1] != self.length:
            raise ValueError(f"{mel.shape[1]} mel frames, not {self.length}")
        body, layer = self.model, self.config.layer
        x = body.embeddings(mel.to(body.embeddings.cls_token.dtype))
        for block in body.layers[: None if layer is None else hidden_index(layer, len(body.layers))]:
            x = first_output(block(x, None))
        x = body.layernorm(x) if layer is None else x
        if self.config.select == "pooled":
            return ((x[:, 0] + x[:, 1]) / 2)[:, None], None
        columns = (self.length - self.patch) // self.stride + 1
        return x[:, 2:].unflatten(1, (-1, columns))[:, :, : self._kept(columns)].flatten(1, 2), None
