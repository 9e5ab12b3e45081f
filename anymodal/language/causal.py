"""The central language model: a transformers Llama that takes soft tokens through `inputs_embeds`.

Source: Touvron et al. 2023, arXiv 2302.13971 (architecture); LLaVA, arXiv 2304.08485 (soft tokens as a prefix).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


class CausalLM(nn.Module):
    """Holds `model` (LlamaForCausalLM) and its width."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        vocab: int = 2048
        width: int = 256
        layers: int = 6
        heads: int = 8
        mlp_width: int = 704
        max_positions: int = 4096
        rope_theta: float = 10000.0

        def __post_init__(self) -> None:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.model = LlamaForCausalLM(LlamaConfig(
            vocab_size=config.vocab, hidden_size=config.width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.heads, intermediate_size=config.mlp_width,
            max_position_embeddings=config.max_positions, rope_parameters={"rope_type": "default",
            "rope_theta": config.rope_theta}, tie_word_embeddings=True, attn_implementation="sdpa",
            bos_token_id=2, eos_token_id=1, pad_token_id=0))
