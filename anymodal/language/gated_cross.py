"""Gated cross-attention: between the layers of a frozen language model, its text reads media.

Flamingo (Alayrac et al. 2022, arXiv 2204.14198). Before every `every`-th layer there is a block: attention from the text to
the media it sees, then an MLP, each behind the tanh of a gate that begins at zero, so that an untrained model is the
language model it began as. Tensors have OpenFlamingo's names, `gated_cross_attn_layers.{layer}.*`; the published models let
text see the media just before it (`windows: 1`). Text that sees no media yet passes the attention by.
Shapes: B sessions or samples, L tokens of text, M tokens of media, D their width, W width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from anymodal.adapters.attention import attend
from anymodal.errors import ConfigError
from anymodal.language.attach import AttachedLM, Seen, decoder_layers, seen_now


class GatedCrossLM(AttachedLM):
    """A language model part that reads media through gated cross-attention. Any causal LM of transformers will do."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        base: Mapping[str, Any] = field(default_factory=dict)  # the language model: `use` and its own keys
        every: int = 1  # a block before every so-manieth layer
        windows: int = 4  # text sees the last so many entries of the memory
        media_width: int | None = None  # of the tokens that media bring; None: the language model's
        heads: int = 8
        head_width: int = 64
        mlp: int = 4  # the MLP's width, in widths of the language model
        freeze: bool = True  # the language model does not learn

        def __post_init__(self) -> None:
            if "use" not in self.base:
                raise ValueError("base names no language model: give it `use`")
            if min(self.every, self.windows, self.heads, self.head_width, self.mlp) < 1:
                raise ValueError(f"every {self.every}, windows {self.windows}, heads {self.heads}, head_width "
                                 f"{self.head_width} and mlp {self.mlp}: each must be at least 1")

    def __init__(self, config: Config) -> None:
        super().__init__(config.base, config.windows, config.freeze)
        self.config = config
        self.width = config.media_width or self.width
        layers = decoder_layers(self.model)
        if config.every > len(layers):
            raise ConfigError(f"every {config.every} is more than the {len(layers)} layers there are", fix="lower every")
        width = self.model.config.get_text_config().hidden_size
        chosen = [i for i in range(len(layers)) if (i + 1) % config.every == 0]
        self.gated_cross_attn_layers = nn.ModuleDict({str(i): GatedBlock(i, width, self.width, config) for i in chosen})
        for i in chosen:  # a hook keeps the language model's own names as they are
            layers[i].register_forward_pre_hook(partial(_before, self.gated_cross_attn_layers[str(i)]), with_kwargs=True)

    @classmethod
    def width_of(cls, options: Mapping[str, Any]) -> int:
        return options.get("media_width") or super().width_of(options)


class GatedBlock(nn.Module):
    """text (B, L, W) and what it sees -> (B, L, W)."""

    def __init__(self, layer: int, width: int, media_width: int, config: GatedCrossLM.Config) -> None:
        super().__init__()
        self.layer = layer
        self.attn = CrossAttention(width, media_width, config.heads, config.head_width)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width * config.mlp, bias=False), nn.GELU(),
                                nn.Linear(width * config.mlp, width, bias=False))
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, seen: Seen) -> Tensor:
        if len(seen):
            x = x + self.attn(x, seen, self.layer) * self.attn_gate.tanh()
        return x + self.ff(x) * self.ff_gate.tanh()


class CrossAttention(nn.Module):
    def __init__(self, width: int, media_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, seen: Seen, layer: int) -> Tensor:
        key, value, mask = seen.kept(layer, lambda: (*seen.project(layer, self._kv), seen.mask()))
        key, value = (y.expand(len(x), -1, -1) for y in (key, value))
        mask = None if mask is None else mask.expand(len(x), -1, -1)
        return self.to_out(attend(self.to_q(self.norm(x)), key, value, heads=self.heads, seen=mask))

    def _kv(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return self.to_kv(tokens).chunk(2, -1)


def _before(block: GatedBlock, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """What goes into a layer has read media first."""
    seen = seen_now()
    if seen is None:
        return None
    if args:
        return (block(args[0], seen), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": block(kwargs["hidden_states"], seen)}
