"""What a language model can do for a stream, read from its configuration.

| positions | forks and a rebuilt cache | how far |
|---|---|---|
| rotary, fixed frequencies | yes | unbounded: nothing breaks past the trained range, but it is worth keeping within it |
| rotary, frequencies that follow the length (dynamic, longrope) | yes | finite: as far as they do not change yet |
| rotary in rows of time, height and width (M-RoPE) | yes: tokens bring their places | unbounded |
| learned | yes | finite: the table's length |
| ALiBi, relative biases, none, rows of another kind | refused | |

Refused too: layers that are not attention over keys and values (recurrent, chunked, cross), attention sinks, attention
that does not go through transformers' AttentionInterface. Sliding layers and capped scores are supported, and what is
added behind the first layers (deepstack).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from anymodal.errors import ConfigError

AXES = 3  # time, height, width
LAYERS = ("full_attention", "sliding_attention", "attention")
FIXED_ROTARY = ("default", "linear", "yarn", "llama3", "proportional")
_FIX = "choose a decoder-only language model such as Llama, Mistral, Qwen2, Qwen3 or Gemma"


@dataclass(frozen=True, slots=True)
class Capability:
    """`most_positions`: None is unbounded. `trained_positions`: beyond them answers may get worse."""

    positions: str  # rotary | learned
    most_positions: int | None
    trained_positions: int | None
    sliding: int | None  # tokens that a sliding layer sees, if there are such layers
    softcap: float | None  # attention scores are capped at this
    rows: int = 1  # positions of a token; 3 with M-RoPE
    extras: int = 0  # layers behind which something can be added to soft tokens

    @property
    def unbounded(self) -> bool:
        return self.most_positions is None

    @classmethod
    def of(cls, model: nn.Module) -> Capability:
        """Read it from a causal LM of transformers. Raises ConfigError for one that a stream cannot use."""
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        _refuse_unforkable(model, config)
        most = _first(config, "max_position_embeddings", "n_positions", "n_ctx")
        positions, limit = _positions(model, config, most)
        window = _first(config, "sliding_window") if getattr(config, "use_sliding_window", True) else None
        rows, extras = _rows(model, config), 0
        if "deepstack_visual_embeds" in inspect.signature(model.base_model.forward).parameters:
            extras = config.num_hidden_layers
        return cls(positions, limit, most, window, _first(config, "attn_logit_softcapping"), rows, extras)

    def check(self, tokens: int, what: str) -> None:
        """Raise ConfigError unless `tokens` positions fit."""
        most = self.trained_positions if self.unbounded else self.most_positions
        if most is not None and tokens > most:
            raise ConfigError(f"{what} take {tokens} tokens, the language model has positions for {most}",
                              fix="lower memory.budget_tokens, or choose a language model with more positions")


def _refuse_unforkable(model: nn.Module, config: Any) -> None:
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ConfigError(f"{name} is an encoder-decoder: its decoder cannot be fed a stream", fix=_FIX)
    if getattr(config, "alibi", False) or "alibi" in str(getattr(config, "attn_config", "")).lower():
        raise ConfigError(f"{name} has ALiBi positions, which shared prefixes do not support", fix=_FIX)
    odd = sorted(set(getattr(config, "layer_types", None) or ()) - set(LAYERS))
    if odd:
        raise ConfigError(f"{name} has layers of type {odd[0]!r}, which shared prefixes do not support", fix=_FIX)
    if not getattr(model, "_supports_attention_backend", False) or getattr(model, "_is_stateful", False):
        raise ConfigError(f"{name} does not take attention functions (AttentionInterface of transformers)", fix=_FIX)
    if any(hasattr(module, "sinks") for module in model.modules()):
        raise ConfigError(f"{name} has attention sinks, which shared prefixes do not support", fix=_FIX)


def _positions(model: nn.Module, config: Any, most: int | None) -> tuple[str, int | None]:
    """The kind of positions, and how many there are; None is unbounded."""
    rotary = getattr(config, "rope_parameters", None)
    if rotary:
        kinds = rotary.values() if all(isinstance(v, dict) for v in rotary.values()) else [rotary]
        for kind in kinds:
            if kind.get("rope_type", "default") not in FIXED_ROTARY:
                return "rotary", kind.get("original_max_position_embeddings") or most
        return "rotary", None
    tables = {n: m for n, m in model.named_modules() if isinstance(m, nn.Embedding)
              and m is not model.get_input_embeddings() and ("pos" in n or n.endswith("wpe"))}
    if tables and most:
        return "learned", most
    raise ConfigError(f"{type(model).__name__} has neither rotary nor learned positions", fix=_FIX)


def _rows(model: nn.Module, config: Any) -> int:
    """Positions of a token. Raises ConfigError where the model does not read the rows that its configuration has."""
    section = (getattr(config, "rope_parameters", None) or {}).get("mrope_section")
    if not section:
        return 1
    if len(section) != AXES or not any(hasattr(module, "mrope_section") for module in model.modules()):
        raise ConfigError(f"{type(model).__name__} has rows of positions (mrope_section {list(section)}) that it is not "
                          "given by its own layers", fix="load it as the model that its config.json names")
    return len(section)


def _first(config: Any, *names: str) -> Any:
    return next((v for n in names if (v := getattr(config, n, None)) is not None), None)
