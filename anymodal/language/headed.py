"""The language model inside a multimodal model of transformers, which has no class of its own there: text model and head.

Qwen2.5-VL, Qwen3-VL and the thinker of Qwen2.5-Omni have such ones. Names of tensors: `model.*` and `lm_head.weight`.
Shapes: B rows, L tokens, W width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


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
