"""Adapter prompts with gates that begin at zero: learned tokens that the upper layers of a frozen language model attend to.

LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199), written from the paper. Each of the top layers has its own prompts.
Their keys and values go through the layer's own frozen projections, without positions; they have a softmax of their own,
and what it brings is added to the layer's attention, head by head behind the tanh of a gate. Media are added to the
prompts: one token to all of them, or one to each; of the last `windows` entries of the memory the mean. With one prompt in
every layer it is ImageBind-LLM's (Han et al. 2023, arXiv 2309.03905).
Shapes: B sessions or samples, L tokens of text, H heads, K key-value heads, D head width, P prompts, E media, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from anymodal.errors import ConfigError
from anymodal.language.attach import AttachedLM, Seen, counted, decoder_layers, seen_now

NAME = "anymodal_prompts"


class AdapterPromptLM(AttachedLM):
    """A language model part with adapter prompts. Raises ConfigError for one without attention functions (MPT)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        base: Mapping[str, Any] = field(default_factory=dict)  # the language model: `use` and its own keys
        prompts: int = 10  # of each layer
        layers: int | None = None  # the top so many have prompts; None: all
        windows: int = 1  # the mean of the last so many entries of the memory is added to the prompts
        freeze: bool = True  # the language model does not learn

        def __post_init__(self) -> None:
            if "use" not in self.base:
                raise ValueError("base names no language model: give it `use`")
            if min(self.prompts, self.windows, 1 if self.layers is None else self.layers) < 1:
                raise ValueError(f"prompts {self.prompts}, windows {self.windows} and layers {self.layers}: each must be "
                                 "at least 1")

    def __init__(self, config: Config) -> None:
        super().__init__(config.base, config.windows, config.freeze)
        self.config = config
        attentions = [attention_of(layer) for layer in decoder_layers(self.model)]
        if None in attentions or not getattr(self.model, "_supports_attention_backend", False):
            raise ConfigError(f"{type(self.model).__name__} does not take attention functions (AttentionInterface of "
                              "transformers)", fix="choose Llama, Mistral, Qwen2, Qwen3, Gemma or OPT")
        count = len(attentions) if config.layers is None else config.layers
        if count > len(attentions):
            raise ConfigError(f"layers {count} are more than the {len(attentions)} there are", fix="lower layers")
        text = self.model.config.get_text_config()
        self.prompts = nn.Parameter(torch.randn(count, config.prompts, text.hidden_size) * 0.02)
        self.gates = nn.Parameter(torch.zeros(count, text.num_attention_heads))
        for i, attention in enumerate(attentions[-count:]):
            attention.attached = partial(self._added, i, attention)
        self.model.config._attn_implementation = NAME

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """What an entry of the memory brings, of its streams' tokens (..., n, D): their mean. Raises ConfigError for n
        other than 1 and the number of prompts."""
        return torch.stack([counted(p, self.config.prompts) for p in parts]).mean(0)

    def _added(self, i: int, attention: nn.Module, query: Tensor, scaling: float) -> Tensor:
        """query (B, H, L, D) of a layer -> what its prompts add to its attention, (B, H, L, D)."""
        seen = Seen(()) if (found := seen_now()) is None else found
        key, value = seen.kept(i, lambda: self._keys(i, attention, seen))  # (B, S, K, P, D), of S sets of prompts
        batch, heads, length, _ = query.shape
        if seen.upto is None or not len(seen):
            key, value = key[:, :1], value[:, :1]  # one set for all tokens
        else:
            rows = torch.arange(len(key), device=query.device)[:, None]
            key, value = key[rows, seen.upto], value[rows, seen.upto]  # (B, L, K, P, D)
        query = query.transpose(1, 2).unflatten(2, (key.shape[2], -1))  # (B, L, K, H / K, D)
        shares = ((query @ key.mT).float() * scaling).softmax(-1).to(value.dtype)
        out = (shares @ value).flatten(2, 3).transpose(1, 2)
        return out * self.gates[i].tanh()[:, None, None].to(out.dtype)

    def _keys(self, i: int, attention: nn.Module, seen: Seen) -> tuple[Tensor, Tensor]:
        prompts = self.prompts[i][None, None]
        if (means := seen.means(self.config.prompts)) is not None:
            prompts = prompts + means.to(prompts.dtype)
        shape = (*prompts.shape[:3], -1, attention.head_dim)
        key, value = attention.k_proj(prompts).view(shape), attention.v_proj(prompts).view(shape)
        if hasattr(attention, "k_norm"):  # as the layer's own keys, but for their positions
            key = attention.k_norm(key)
        return key.transpose(2, 3), value.transpose(2, 3)


def attention_of(layer: nn.Module) -> nn.Module | None:
    """A decoder layer's attention, if it has keys and values of its own."""
    return next((m for m in layer.children() if hasattr(m, "k_proj") and hasattr(m, "v_proj")), None)


def prompted_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                       scaling: float | None = None, **more: Any) -> tuple[Tensor, None]:
    """PyTorch's attention, and what is attached to the layer; in the interface of transformers."""
    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    if (attached := getattr(module, "attached", None)) is not None:
        out = out + attached(query, query.shape[-1] ** -0.5 if scaling is None else scaling).transpose(1, 2)
    return out, None


AttentionInterface.register(NAME, prompted_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
