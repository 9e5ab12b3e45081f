"""DINOv2, with or without registers, through transformers: frames -> patch features learned without any text.

The position embeddings are resampled to the size of the preprocessed frame, as published (518 px trained, 224 px used).
Shapes: B frames, L tokens, D width.
Source: Oquab et al. 2023, arXiv 2304.07193; registers: Darcet et al. 2023, arXiv 2309.16588.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from encoders.tower import TowerConfig, VisionTower, vision_part


class Dinov2Tower(VisionTower):
    """A published DINOv2. Tensors: `embeddings.*`, `encoder.layer.*`, `layernorm.*`; it has no joint space.

    select "cls_patch" has the registers between the class token and the patches, "patch" has neither.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if config.joint:
            raise ValueError("DINOv2 was trained without text: it has no joint space")
        vision = vision_part(config.vision)
        registers = vision.get("model_type") == "dinov2_with_registers"
        kind, model = (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if registers else (Dinov2Config, Dinov2Model)
        known = kind.from_dict(vision, attn_implementation=config.attention)
        self.width = known.hidden_size
        self.extra_tokens = 1 + (known.num_register_tokens if registers else 0)
        body = model._from_config(known)
        self.embeddings, self.encoder, self.layernorm = body.embeddings, body.encoder, body.layernorm
        self._finish()

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.embeddings(pixels)

    def _blocks(self) -> Iterable[nn.Module]:
        return self.encoder.layer

    def _last_norm(self, state: Tensor) -> Tensor:
        return self.layernorm(state)

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        return self._last_norm(state)[:, 0]
