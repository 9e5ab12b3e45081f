"""The language model inside a multimodal model of transformers, which has no class of its own there: text model and head.

Qwen2.5-VL, Qwen3-VL and the thinker of Qwen2.5-Omni have such ones. Tensors of `HeadedLM`: `model.model.*` and
`model.lm_head.weight`.
Shapes: B rows, L tokens, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from anymodal.errors import ConfigError, nearest


class HeadedText(nn.Module):
    """A text model with a head over the vocabulary; called as transformers' causal LMs are."""

    _supports_attention_backend = True
    _is_stateful = False

    def __init__(self, model: PreTrainedModel, *, tied: bool = False) -> None:
        """`tied`: the head is the table of embeddings; the whole model's configuration says so."""
        super().__init__()
        self.config = config = model.config
        self.model = model
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if tied:
            self.lm_head.weight = self.get_input_embeddings().weight

    @property
    def base_model(self) -> nn.Module:
        return self.model

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def forward(self, *, logits_to_keep: Tensor | int = 0, **given: Any) -> tuple[Tensor]:
        """inputs_embeds (B, L, W), position_ids (3, B, L), ... -> logits (B, k, V) of the last k tokens, of those of
        these numbers, or of all."""
        hidden = self.model(**given)[0]
        which = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return (self.lm_head(hidden[:, which]),)


class HeadedLM(nn.Module):
    """Holds `model`, a HeadedText, and its width. Its weights come from a checkpoint.

    text: the text part of the checkpoint's config.json. tied: whether the head is the table of embeddings.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        text: Mapping[str, Any] = field(default_factory=dict)
        tied: bool = False
        attention: str = "sdpa"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes, kind = text_of(config.text)
        self.width = sizes.hidden_size
        self.model = HeadedText(kind._from_config(sizes, attn_implementation=config.attention), tied=config.tied)

    @classmethod
    def width_of(cls, options: Mapping[str, Any]) -> int:
        """Its width, without building it. options: those of `Config`."""
        return cls.Config(**options).text["hidden_size"]

    def tie_weights(self) -> None:
        if self.config.tied:
            self.model.lm_head.weight = self.model.get_input_embeddings().weight


def text_of(text: Mapping[str, Any]) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """A config.json's text part as transformers' config, and its class. Raises ConfigError for an unknown one."""
    from transformers.models.qwen2_5_omni import configuration_qwen2_5_omni, modeling_qwen2_5_omni
    from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl
    from transformers.models.qwen3_vl import configuration_qwen3_vl, modeling_qwen3_vl

    known = {"qwen2_5_vl_text": (configuration_qwen2_5_vl.Qwen2_5_VLTextConfig, modeling_qwen2_5_vl.Qwen2_5_VLTextModel),
             "qwen3_vl_text": (configuration_qwen3_vl.Qwen3VLTextConfig, modeling_qwen3_vl.Qwen3VLTextModel),
             "qwen2_5_omni_text": (configuration_qwen2_5_omni.Qwen2_5OmniTextConfig,
                                   modeling_qwen2_5_omni.Qwen2_5OmniThinkerTextModel)}
    kind = str(text.get("model_type"))
    if kind not in known:
        raise ConfigError(f"no text model of type {kind!r} without a head is known", fix=nearest(kind, known))
    sizes, model = known[kind]
    return sizes(**{k: v for k, v in text.items() if k not in ("model_type", "_attn_implementation")}), model
