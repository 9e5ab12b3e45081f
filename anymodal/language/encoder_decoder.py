"""T5 and its like: soft tokens and the question enter the encoder, the answer is decoded.

As BLIP-2 over Flan-T5 (Li et al. 2023, arXiv 2301.12597). The encoder reads the question together with the list, so nothing
of it can be kept from one question to the next: see `anymodal.language.plain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache

from anymodal.errors import ConfigError, nearest
from anymodal.language.capability import Capability
from anymodal.language.plain import PlainTrunk
from anymodal.language.rows import Rows


class EncoderDecoderLM(nn.Module):
    """Holds `model`, an encoder-decoder with its head, and its width. Raises ConfigError for an unknown architecture.

    text: the LM's config, as config.json has it (often `text_config`). Tensors: behind `model.`.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        text: Mapping[str, Any] = field(default_factory=dict)
        attention: str = "sdpa"

        def __post_init__(self) -> None:
            if not self.text.get("model_type"):
                raise ValueError("the language model's config has no model_type")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        known = _known(config.text)
        self.width = known.d_model
        self.model = AutoModelForSeq2SeqLM.from_config(known, attn_implementation=config.attention)

    @classmethod
    def width_of(cls, options: Mapping[str, Any]) -> int:
        """Its width, without building it. options: those of `Config`."""
        return _known(cls.Config(**options).text).d_model

    @property
    def capability(self) -> Capability:
        return Capability("relative", None, None, None, None)

    def trunk(self, capacity: int) -> PlainTrunk:
        return PlainTrunk(self.model, read=Decoding)

    def tie_weights(self) -> None:
        self.model.tie_weights()


class Decoding:
    """An encoder-decoder that has read embeddings (L, W), and decodes. `logits` (V,) of what comes next."""

    def __init__(self, model: nn.Module, rows: Rows, windows: int | None) -> None:
        self.model = model
        self._encoded = model.get_encoder()(inputs_embeds=rows.embeds[None])
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        config = model.config
        start = getattr(config, "decoder_start_token_id", None)
        self.step(torch.tensor(config.pad_token_id if start is None else start, device=rows.embeds.device))

    def step(self, token: Tensor) -> None:
        """One more token, an id without a dimension."""
        out = self.model(encoder_outputs=self._encoded, decoder_input_ids=token[None, None], past_key_values=self._cache,
                         use_cache=True)
        self.logits = out.logits[0, -1]


def _known(text: Mapping[str, Any]) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as KNOWN

    kind = str(text.get("model_type"))
    if kind not in KNOWN:
        raise ConfigError(f"no encoder-decoder language model of type {kind!r} is known", fix=nearest(kind, KNOWN))
    return AutoConfig.for_model(kind, **{k: v for k, v in text.items() if k != "model_type"})
