"""A published language model with low-rank adapters that were published apart from it (PandaGPT's file, peft's files).

Hu et al. 2021, arXiv 2106.09685: a layer's weight is W + B A alpha / r. They are kept beside the weight, as in training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from anymodal.errors import ConfigError
from anymodal.language.pretrained import PretrainedLM


class LoraLM(PretrainedLM):
    """`PretrainedLM` whose layers named in `targets` have adapters of rank `rank`.

    Tensors: the LM's own as ever, and `model.(path).lora_A.weight`, `lora_B.weight`; peft's names of them are known.
    """

    # peft puts the name of the adapter behind, and in a whole model its own wrapping before
    renames = ((r"\bbase_model\.model\.", ""), (r"\.lora_([AB])\.default\.weight$", r".lora_\1.weight"))

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(PretrainedLM.Config):
        rank: int = 8
        alpha: float = 16.0
        targets: tuple[str, ...] = ("q_proj", "v_proj")  # last parts of the layers' names

        def __post_init__(self) -> None:
            PretrainedLM.Config.__post_init__(self)
            if self.rank < 1 or not self.targets:
                raise ValueError(f"rank {self.rank} must be at least 1, and targets {list(self.targets)} name a layer")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        found = list(self._targets(config.targets))
        missing = sorted(set(config.targets) - {name for _, name in found})
        if missing:
            raise ConfigError(f"no linear layer of the language model is called {missing[0]!r}",
                              fix="mend the language part's `targets`")
        for owner, name in found:
            setattr(owner, name, LoraLinear(getattr(owner, name), config.rank, config.alpha))

    def _targets(self, names: tuple[str, ...]) -> Iterator[tuple[nn.Module, str]]:
        wanted = re.compile("|".join(map(re.escape, names)))
        for owner in list(self.model.modules()):
            for name, layer in owner.named_children():
                if isinstance(layer, nn.Linear) and wanted.fullmatch(name):
                    yield owner, name


class LoraLinear(nn.Linear):
    """x -> W x + b + B A x alpha / r. Takes over the layer's weight and bias."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.lora_B(self.lora_A(x)) * self.scale

    def move_to(self, layer: nn.Module) -> None:
        """Put the adapter beside another layer of the same sizes, one in fewer bits; names of tensors stay."""
        layer.lora_A, layer.lora_B, scale = self.lora_A, self.lora_B, self.scale

        def add(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            x = given[0].to(layer.lora_A.weight.dtype)
            return out + (layer.lora_B(layer.lora_A(x)) * scale).to(out.dtype)

        layer.register_forward_hook(add)
