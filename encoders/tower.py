"""What the published vision towers share: which hidden state, which of its tokens, and the frames they want.

The blocks are transformers' own modules, run one by one up to the hidden state that is asked for: the layers after it
are never computed. Shapes: B frames, L tokens of the tower, P features chosen of them, D width, E joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from encoders.preprocess import PictureRule

SELECT = ("patch", "cls_patch", "cls", "pooled")


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerConfig:
    """What a bundle chooses of a published tower; its sizes are the checkpoint's own.

    vision: the checkpoint's config.json, or the vision part of it. preprocessor: its preprocessor_config.json.
    layer: index of a hidden state, 0 the embeddings, n what block n puts out, negative from the end; None: the model's
    own output. norm: the tower's last norm over that state; None: as the model itself has it, on its own output only.
    select: "patch" features without the class token, "cls_patch" all, "cls" that alone, "pooled" the model's pooler.
    joint: also project to the space shared with text, where the checkpoint has a projection.
    """

    vision: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    layer: int | None = None
    select: str = "patch"
    norm: bool | None = None
    joint: bool = False
    pad_square: bool = False
    attention: str = "sdpa"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise ValueError(f"select {self.select!r} is none of {', '.join(SELECT)}")
        if self.select == "pooled" and self.layer is not None:
            raise ValueError(f"the pooled output is read from the last layer, not from layer {self.layer}")


class VisionTower(nn.Module):
    """float pixels (B, 3, H, W) from `prepare` -> features (B, P, D), unit joint embeddings (B, E) or None.

    A family gives `_embed`, `_blocks`, `_last_norm` and `_pool`, and says how many tokens come before the patches.
    """

    Config = TowerConfig
    own_norm: ClassVar[bool] = True  # whether the model's own output has gone through its last norm
    extra_tokens: int = 1  # the class token and registers, which come before the patches
    width: int

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.rule = self._rule() if config.preprocessor else None

    @classmethod
    def from_pretrained_config(cls, config: Mapping[str, Any], **options: Any) -> VisionTower:
        """A checkpoint's config -> the tower, its weights not yet filled in. Options are those of `Config`."""
        return cls(cls.Config(vision=dict(config), **options))

    def prepare(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 (B, H, W, 3), or a list of (H, W, 3), at full resolution -> float32 pixels, as the model was trained."""
        if self.rule is None:
            raise ValueError("no preprocessor was given, so what the model expects of pixels is not known")
        return self.rule(frames)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        config = self.config
        whole = config.joint or config.select == "pooled"
        blocks = list(self._blocks())
        wanted = len(blocks) if config.layer is None else hidden_index(config.layer, len(blocks))
        pixels = pixels.to(next(self.parameters()).dtype)
        state, real = self._embed(pixels), self._real(pixels)
        chosen = state if wanted == 0 else None
        for done, block in enumerate(blocks if whole else blocks[:wanted], start=1):
            state = self._run(block, state, real)
            chosen = state if done == wanted else chosen
        pooled = self._pool(state, real) if whole else None
        features = pooled[:, None] if config.select == "pooled" else self._select(chosen, real)
        return features, nn.functional.normalize(self._project(pooled).float(), dim=-1) if config.joint else None

    def _select(self, state: Tensor, real: Tensor | None) -> Tensor:
        """The tokens asked for, of the hidden state asked for. Those that only fill up a batch become zero."""
        config = self.config
        if config.norm if config.norm is not None else config.layer is None and self.own_norm:
            state = self._last_norm(state)
        if real is not None:
            state = (state * real[..., None].to(state.dtype))[:, : int(real.sum(1).max())]
        if config.select == "patch":
            return state[:, self.extra_tokens :]
        return state if config.select == "cls_patch" else state[:, :1]

    def _real(self, pixels: Tensor) -> Tensor | None:
        """Which tokens are real, bool (B, L); None where all are."""
        return None

    def _run(self, block: nn.Module, state: Tensor, real: Tensor | None) -> Tensor:
        mask = None
        if real is not None:
            mask = state.new_zeros(real.shape).masked_fill(~real, torch.finfo(state.dtype).min)[:, None, None]
            mask = mask.expand(-1, -1, state.shape[1], -1)
        return block(state, attention_mask=mask)

    def _finish(self) -> None:
        """To be called last by a family's constructor: what the options ask must be there."""
        if self.config.select in ("cls", "cls_patch") and not self.extra_tokens:
            raise ValueError(f"select {self.config.select!r}: this tower has no class token; use patch or pooled")
        if self.config.layer is not None:
            hidden_index(self.config.layer, len(list(self._blocks())))
        if self.config.compile:
            for block in self._blocks():
                block.compile(dynamic=True)

    def _rule(self) -> Callable[..., Any]:
        return PictureRule.from_config(self.config.preprocessor, pad_square=self.config.pad_square)

    def _embed(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def _blocks(self) -> Iterable[nn.Module]:
        raise NotImplementedError

    def _last_norm(self, state: Tensor) -> Tensor:
        raise NotImplementedError

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        """The last block's output (B, L, D) -> (B, D), as the model pools it."""
        raise NotImplementedError

    def _project(self, pooled: Tensor) -> Tensor:
        return pooled


def hidden_index(layer: int, blocks: int) -> int:
    """Index of a hidden state, counted from either end -> 0..blocks. Raises ValueError outside of them."""
    index = layer if layer >= 0 else blocks + 1 + layer
    if not 0 <= index <= blocks:
        raise ValueError(f"layer {layer} of a tower with {blocks} layers: it has hidden states "
                         f"{-blocks - 1} to {blocks}")
    return index


def vision_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The vision sub-config of a whole model's config.json, or the config itself if it is one already."""
    return dict(config.get("vision_config") or config)
