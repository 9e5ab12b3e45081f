"""BLIP-2's Q-Former as published: learned queries read each frame, and with an instruction only what it asks for.

Li et al. 2023, arXiv 2301.12597; with instruction text InstructBLIP, Dai et al. 2023, arXiv 2305.06500; frame by frame
and laid end to end as InstructBLIP-Video. Through transformers, whose names the tensors have: `query_tokens`,
`qformer.*`, `language_projection.*`; a checkpoint in LAVIS' layout (MiniGPT-4, Video-LLaMA) has what is below
`Qformer.bert.` renamed (`renames`).
Shapes: B windows, T frames, P features a frame, D feature width, Q queries, W own width, L ids of the instruction,
N LM width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, InstructBlipQFormerConfig, InstructBlipQFormerModel

# Prefixes of LAVIS' files -> here. There is a `Qformer.bert.embeddings.position_ids` too, to be ignored.
LAVIS_PREFIXES = {"query_tokens": "query_tokens", "Qformer.bert.": "qformer.", "llama_proj.": "language_projection.",
                  "opt_proj.": "language_projection.", "t5_proj.": "language_projection.",
                  "llm_proj.": "language_projection."}


def lavis_names(*, text: bool = False) -> tuple[tuple[str, str], ...]:
    """(pattern, replacement) for `re.sub`: how names of LAVIS read here. Those of transformers stay as they are.

    text: does the Q-Former read an instruction? Its embeddings have names of their own then.
    """
    return ((r"\bembeddings\.LayerNorm\.", "embeddings.layernorm." if text else "layernorm."),
            (r"\b((?:cross)?attention)\.self\.", r"\1.attention."))


class Blip2QFormer(nn.Module):
    """features (B, T, P, D), valid frames (B, T) -> states (B, T * Q, W), the queries of frame after frame.

    With `text`, `forward` takes the instruction's ids (in the Q-Former's own vocabulary, BERT's) as well: tokens then
    depend on the question, so they cannot be pooled before it is asked.
    """

    per_step = True  # tokens of each step in turn

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        queries: int = 32
        width: int = 768
        layers: int = 12
        heads: int = 12
        mlp_width: int = 3072
        cross_every: int = 2  # layers 0, 2, 4, ... look at the features
        eps: float = 1e-12
        act: str = "gelu"
        text: bool = False  # reads an instruction
        vocab: int = 30523  # of the instruction's ids
        max_text: int = 512

        def __post_init__(self) -> None:
            if min(self.queries, self.layers, self.cross_every) < 1:
                raise ValueError(f"queries {self.queries}, layers {self.layers} and cross_every {self.cross_every}: "
                                 "each must be at least 1")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def __init__(self, config: Config, *, feature_width: int, lm_width: int | None) -> None:
        """lm_width: None for states that another adapter pools on, without a projection."""
        super().__init__()
        self.config = config
        self.query_tokens = nn.Parameter(torch.randn(1, config.queries, config.width) * 0.02)
        self.qformer = query_transformer(config, feature_width, text=config.text)
        self.language_projection = nn.Identity() if lm_width is None else nn.Linear(config.width, lm_width)

    @property
    def question_conditioned(self) -> bool:
        return self.config.text

    @property
    def renames(self) -> tuple[tuple[str, str], ...]:
        return lavis_names(text=self.config.text)

    def forward(self, features: Tensor, valid: Tensor, ids: Tensor | None = None,
                ids_valid: Tensor | None = None) -> Tensor:
        """ids: the instruction (B, L) or (1, L) for all, `ids_valid` (the same shape, bool) marks what is no padding.

        Raises ValueError for an instruction where none is read, and for none where one is.
        """
        if (ids is not None) != self.config.text:
            raise ValueError("this Q-Former reads an instruction: give `ids`" if self.config.text
                             else "this Q-Former reads no instruction: leave `ids` out")
        batch, steps = features.shape[:2]
        asked = {}
        if ids is not None:
            seen = torch.ones_like(ids, dtype=torch.bool) if ids_valid is None else ids_valid.bool()
            ids, seen = (x.expand(batch, -1).repeat_interleave(steps, 0) for x in (ids, seen))
            seen = torch.cat([seen.new_ones(len(seen), self.config.queries), seen], 1)
            asked = {"input_ids": ids, "attention_mask": seen.long()}
        states = self.qformer(query_embeds=self.query_tokens.expand(batch * steps, -1, -1),
                              encoder_hidden_states=features.flatten(0, 1), **asked).last_hidden_state
        return states[:, : self.config.queries].unflatten(0, (batch, steps)).flatten(1, 2)

    def project(self, states: Tensor) -> Tensor:
        """States (B, T * Q, W) -> LM input embeddings (B, T * Q, N)."""
        return self.language_projection(states)


def query_transformer(config: Any, feature_width: int, *, text: bool = False) -> nn.Module:
    """The transformer of a Config's `width`, `layers`, ... over features of `feature_width`, without dropout."""
    sizes = {"hidden_size": config.width, "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
             "intermediate_size": config.mlp_width, "cross_attention_frequency": config.cross_every,
             "encoder_hidden_size": feature_width, "layer_norm_eps": config.eps, "hidden_act": config.act,
             "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if text:
        return InstructBlipQFormerModel(InstructBlipQFormerConfig(
            **sizes, vocab_size=config.vocab, max_position_embeddings=config.max_text))
    return Blip2QFormerModel(Blip2QFormerConfig(**sizes, use_qformer_text_input=False))
