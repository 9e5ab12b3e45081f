"""A published language model, or that part of a published multimodal one, as transformers has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from anymodal.errors import ConfigError, nearest


class PretrainedLM(nn.Module):
    """Holds `model`, a decoder-only LM with its head, and its width. Its weights come from a checkpoint.

    text: the LM's config, as config.json has it (often `text_config`); its `model_type` says which architecture.
    Tensors: those of the LM alone behind `model.`, such as `model.model.layers.0...` and `model.lm_head.weight`.
    words: learned vectors that are no token's, said as ids -1, -2, ...: `model.<embeddings>.words.0`, ...
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        text: Mapping[str, Any] = field(default_factory=dict)
        attention: str = "sdpa"
        words: int = 0

        def __post_init__(self) -> None:
            if not self.text.get("model_type"):
                raise ValueError("the language model's config has no model_type")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        known = text_config(config.text)
        known._attn_implementation = config.attention
        self.width = lm_width(known)
        self.model = AutoModelForCausalLM.from_config(known, attn_implementation=config.attention)
        if config.words:
            self.model.set_input_embeddings(WordsBeside(self.model.get_input_embeddings(), config.words))

    @classmethod
    def width_of(cls, options: Mapping[str, Any]) -> int:
        """Its width, without building it. options: those of `Config`."""
        return lm_width(text_config(cls.Config(**options).text))

    def tie_weights(self) -> None:
        self.model.tie_weights()


class WordsBeside(nn.Embedding):
    """A table of embeddings (V, W), and beside it learned vectors (W,) for the ids -1, -2, ..., which no answer has."""

    def __init__(self, table: nn.Embedding, words: int) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, table.padding_idx, _weight=table.weight)
        self.words = nn.ParameterList(nn.Parameter(torch.zeros_like(table.weight[0])) for _ in range(words))

    def forward(self, ids: Tensor) -> Tensor:
        found = super().forward(ids.clamp(min=0))
        for number, word in enumerate(self.words):
            found = torch.where((ids == -1 - number)[..., None], word.to(found.dtype), found)
        return found


def text_config(text: Mapping[str, Any]) -> PretrainedConfig:
    """A config.json's language part as transformers' config. Raises ConfigError for an unknown architecture."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    kind = str(text.get("model_type"))
    if kind not in KNOWN:
        raise ConfigError(f"no decoder-only language model of type {kind!r} is known", fix=nearest(kind, KNOWN))
    return AutoConfig.for_model(kind, **{k: v for k, v in text.items() if k != "model_type"})


def lm_width(config: PretrainedConfig) -> int:
    """Of the embeddings that go in: OPT-350m's are narrower than its layers."""
    return getattr(config, "word_embed_proj_dim", None) or config.hidden_size
