"""EVA-CLIP-g as BLIP-2 has it, through transformers: 39 of its 40 blocks, and a LayerNorm over all their tokens.

Shapes: B frames, L tokens, D width (1408 as published).
Source: Fang et al. 2022, arXiv 2211.07636; Li et al. 2023, arXiv 2301.12597, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from transformers import Blip2VisionConfig, Blip2VisionModel

from encoders.tower import TowerConfig, VisionTower, vision_part


class EvaTower(VisionTower):
    """BLIP-2's, InstructBLIP's and MiniGPT-4's picture tower. Their Q-Formers read select "cls_patch".

    Tensors: `vision_model.*`, in the layout of transformers' BLIP-2.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if config.joint:
            raise ValueError("this tower has no space shared with text: in BLIP-2 that is the Q-Former's")
        vision = {k: v for k, v in vision_part(config.vision).items() if k != "model_type"}  # InstructBLIP's is the same
        known = Blip2VisionConfig.from_dict(vision, attn_implementation=config.attention)
        self.width = known.hidden_size
        self.vision_model = Blip2VisionModel._from_config(known)
        self._finish()

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.vision_model.embeddings(pixels)

    def _blocks(self) -> Iterable[nn.Module]:
        return self.vision_model.encoder.layers

    def _run(self, block: nn.Module, state: Tensor, real: Tensor | None) -> Tensor:
        return block(state)  # takes no mask

    def _last_norm(self, state: Tensor) -> Tensor:
        return self.vision_model.post_layernorm(state)

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        return self._last_norm(self._last_norm(state)[:, 0])  # twice, as in transformers
