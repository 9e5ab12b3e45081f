"""LoRA adapters in peft's layout, merged into a language model's weights as these are read: it is as large and fast as
without.

    W + alpha / r * B A             (alpha / sqrt(r) with `use_rslora`: Kalajdzievski 2023, arXiv 2312.03732)

Hu et al. 2021, arXiv 2106.09685. An adapter is a folder with `adapter_config.json` and `adapter_model.safetensors` (or
`.bin`). What else peft can train (DoRA, biases, other methods) is refused; whole layers (`modules_to_save`) are taken over.
`anymodal.language.lora` keeps an adapter beside its weights instead, as single published models have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anymodal.checkpoint import Checkpoint
from anymodal.errors import WeightsError
from anymodal.models import read_json

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PAIR = re.compile(r"(?:base_model\.model\.)?(?P<path>.+?)\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B)"
                   r"(?:\.[\w-]+)?$")
_WHOLE = re.compile(r"(?:base_model\.model\.)?(?P<path>.+?)(?:\.base_layer)?(?:\.modules_to_save)?(?:\.default)?"
                    r"\.(?P<leaf>weight|bias)$")
_MERGE = "merge it with peft (merge_and_unload, save_pretrained) and give the folder of that model"
_OTHER = "use an adapter that was trained on this model"


class Merged:
    """An adapter for a part whose tensors are called `names`. tensors: the part's own, prefix in files -> in the part.

    Called with a tensor's name and value, it gives the value to use. Raises WeightsError for what does not fit.
    """

    def __init__(self, folder: Path, names: Iterable[str], tensors: Mapping[str, str]) -> None:
        self.folder, self._names, self._tensors = folder, set(names), dict(tensors)
        self.config = read_json(folder / CONFIG)
        bias = self.config.get("bias", "none")
        if self.config.get("peft_type") != "LORA" or self.config.get("use_dora") or bias != "none":
            odd = "DoRA" if self.config.get("use_dora") else f"{self.config.get('peft_type')} with bias {bias!r}"
            raise WeightsError(f"{folder}: {odd} cannot be merged", fix=_MERGE)
        self.pairs: dict[str, dict[str, Tensor]] = {}
        self.whole: dict[str, Tensor] = {}
        self._paths: dict[str, str] = {}
        self._read(Checkpoint(folder, next(([f] for f in FILES if (folder / f).is_file()), FILES)))

    def _read(self, checkpoint: Checkpoint) -> None:
        for key, tensor in checkpoint.read(checkpoint.keys):
            if found := _PAIR.match(key.removesuffix(".weight")):
                name = self._name(found["path"], "weight")
                self._paths[name] = found["path"]
                self.pairs.setdefault(name, {})[found["kind"]] = tensor
            elif found := _WHOLE.match(key):
                self.whole[self._name(found["path"], found["leaf"])] = tensor
            else:
                raise WeightsError(f"{self.folder}: unknown tensor {key!r}", fix=_MERGE)
        for name, pair in self.pairs.items():
            if len(pair) != 2:
                raise WeightsError(f"{self.folder}: {self._paths[name]} has {next(iter(pair))} alone",
                                   fix="copy the adapter again")

    def _name(self, path: str, leaf: str) -> str:
        """Of a layer in the part: as it is in the language model alone, or in a whole published model."""
        key = f"{path}.{leaf}"
        mapped = (to + key[len(prefix) :] for prefix, to in sorted(self._tensors.items(), key=lambda t: -len(t[0]))
                  if key.startswith(prefix))
        for name in (f"model.{key}", *mapped, key):
            if name in self._names:
                return name
        raise WeightsError(f"{self.folder} is for a layer {path!r}, which the language model does not have", fix=_OTHER)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        if name in self.whole:
            self._check(name, self.whole[name].shape, tensor.shape)
            tensor = self.whole[name]
        if name not in self.pairs:
            return tensor
        change = self._change(name)
        self._check(name, change.shape, tensor.shape)
        return (tensor.float() + change).to(tensor.dtype if tensor.is_floating_point() else torch.float32)

    def _change(self, name: str) -> Tensor:
        pair, path = self.pairs[name], self._paths[name]
        one, other = sorted(pair)
        a, b = pair[one].float(), pair[other].float()
        rank = a.shape[0]
        self._check(f"{path}'s {other}", b.shape, (b.shape[0], rank))
        alpha = _pattern(self.config.get("alpha_pattern"), path, self.config.get("lora_alpha", rank))
        change = b @ a * (alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))
        return change.T if "embedding" in one or self.config.get("fan_in_fan_out") else change

    def _check(self, what: str, shape: Any, wanted: Any) -> None:
        if tuple(shape) != tuple(wanted):
            raise WeightsError(f"{self.folder}: {what} is {tuple(shape)}, {tuple(wanted)} is wanted", fix=_OTHER)


def _pattern(patterns: dict[str, Any] | None, path: str, usual: Any) -> Any:
    """peft's alpha_pattern: a layer's name, its end, or a regular expression of these."""
    return next((v for k, v in (patterns or {}).items() if re.match(rf"(.*\.)?({k})$", path)), usual)
