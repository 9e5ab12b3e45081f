"""Speech to words by any Whisper-class model that transformers loads, from a folder or a hub id.

Source: Radford et al. 2022, arXiv 2212.04356.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anymodal.errors import ConfigError, WeightsError, need
from anymodal.speech.sound import SPEECH_HZ


class Whisper:
    """A Recognizer."""

    @dataclass(frozen=True)
    class Config:
        weights: str = "openai/whisper-base.en"
        """A folder as transformers saves it, also relative to the bundle's weights, or a hub id."""
        language: str = ""
        """Of a model of several languages, such as "english"; "" lets it find out."""
        device: str = "cpu"
        dtype: str = "float32"
        max_words: int = 60
        """Tokens of an utterance at most."""

        def __post_init__(self) -> None:
            if self.max_words < 1:
                raise ValueError(f"max_words must be positive, found {self.max_words}")

    def __init__(self, config: Config, *, folder: Path) -> None:
        torch, transformers = need("torch", extra="run"), need("transformers", extra="run")
        local = folder / config.weights
        where = str(local if local.is_dir() else config.weights)
        dtype = getattr(torch, config.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ConfigError(f"speech.asr: unknown dtype {config.dtype!r}", fix="float32, bfloat16 or float16")
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(where)
            model, found = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(where, dtype=dtype,
                                                                                  output_loading_info=True)
        except (OSError, ValueError) as error:
            raise WeightsError(f"speech.asr: no model {config.weights!r}: {' '.join(str(error).split()):.300}",
                               fix="give a folder with a whole model, or a hub id where the hub can be reached") from error
        if found["missing_keys"]:  # they would be random
            raise WeightsError(f"speech.asr: {where} has no tensor {sorted(found['missing_keys'])[0]!r}",
                               fix="give a folder with a whole model")
        self.name = Path(config.weights).name
        self._torch, self._model, self._dtype = torch, model.to(config.device).eval(), dtype
        self._options = {"max_new_tokens": config.max_words, "do_sample": False, "num_beams": 1}
        if config.language:
            self._options |= {"language": config.language, "task": "transcribe"}

    def transcribe(self, samples: np.ndarray) -> str:
        """Words of an utterance, float32 (T,) at 16 kHz, of up to 30 s; "" where nothing was understood."""
        if not len(samples):
            return ""
        given = self._processor(samples, sampling_rate=SPEECH_HZ, return_tensors="pt", return_attention_mask=True)
        with self._torch.inference_mode():
            tokens = self._model.generate(given.input_features.to(self._model.device, self._dtype),
                                          attention_mask=given.attention_mask.to(self._model.device), **self._options)
        return self._processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
