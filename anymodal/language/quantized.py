"""Linear layers in 8 or 4 bits, by bitsandbytes: made in place of a model's own before its weights are read.

8 bits: LLM.int8, Dettmers et al. 2022, arXiv 2208.07339. 4 bits: NF4 with a second quantization of its constants, as in
QLoRA, Dettmers et al. 2023, arXiv 2305.14314. A layer's weight is quantized when it is filled in, one at a time, so the
model is never whole in memory at its own precision. Low-rank adapters beside a layer stay as they are, as in QLoRA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anymodal.errors import ConfigError, need
from anymodal.language.lora import LoraLinear

BITS = {"8bit": 8, "4bit": 4}


def check_quantize(kind: str, device: str) -> Any:
    """bitsandbytes. Raises MissingExtraError, and ConfigError where there is no GPU for it."""
    found = need("bitsandbytes", extra="quant")
    if torch.device(device).type != "cuda":
        raise ConfigError(f"quantize {kind!r} needs a CUDA GPU, the language model is on {device!r}",
                          fix="set device cuda, or leave quantize out")
    return found


def quantize_layers(model: nn.Module, kind: str, compute: torch.dtype, bitsandbytes: Any) -> int:
    """Replace every linear layer but the head; returns how many. Their weights are to be given by `fill_weight`."""
    head, count = model.get_output_embeddings(), 0
    for owner in list(model.modules()):
        if isinstance(owner, LoraLinear):
            continue  # its own children are the adapter
        for name, layer in list(owner.named_children()):
            if type(layer) not in (nn.Linear, LoraLinear) or layer is head:
                continue
            given = {"bias": layer.bias is not None, "device": "meta"}
            if kind == "4bit":
                made = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, compute_dtype=compute,
                                                  quant_type="nf4", compress_statistics=True, **given)
            else:
                made = bitsandbytes.nn.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=False, **given)
            if isinstance(layer, LoraLinear):
                layer.move_to(made)
            setattr(owner, name, made)
            count += 1
    return count


def fill_weight(owner: nn.Module, tensor: Tensor, device: str) -> bool:
    """Quantize a layer's weight on its way to `device`. False: it is not such a layer."""
    weight = getattr(owner, "weight", None)
    kind = type(weight).__name__
    if kind == "Params4bit":
        made = type(weight)(tensor.cpu(), requires_grad=False, quant_type=weight.quant_type,
                            compress_statistics=weight.compress_statistics, quant_storage=weight.quant_storage,
                            module=owner)
    elif kind == "Int8Params":
        made = type(weight)(tensor.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        return False
    owner.weight = made.to(device)
    return True
