"""SigLIP and SigLIP 2, through transformers: frames -> patch features, and the pooled embedding shared with text.

SigLIP 2 of a fixed resolution has SigLIP's architecture and loads as `SiglipTower`; NaFlex keeps the aspect ratio.
Shapes: B frames, S places for patches, L = S tokens, D width, d values of a patch.
Source: Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025, arXiv 2502.14786.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Siglip2VisionConfig, Siglip2VisionModel, SiglipVisionConfig, SiglipVisionModel

from encoders.preprocess import PatchRule
from encoders.tower import TowerConfig, VisionTower, vision_part


class SiglipTower(VisionTower):
    """A published SigLIP, or a SigLIP 2 of a fixed resolution. Tensors: `vision_model.*`."""

    extra_tokens = 0
    kinds = (SiglipVisionConfig, SiglipVisionModel)

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        kind, model = self.kinds
        known = kind.from_dict(vision_part(config.vision), attn_implementation=config.attention)
        self.width = known.hidden_size
        self.vision_model = model._from_config(known)
        if (config.joint or config.select == "pooled") and not getattr(self.vision_model, "use_head", True):
            raise ValueError("this SigLIP was published without its pooling head (vision_use_head is false), so it has "
                             "neither a pooled output nor a joint space")
        self._finish()

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.vision_model.embeddings(pixels)

    def _blocks(self) -> Iterable[nn.Module]:
        return self.vision_model.encoder.layers

    def _last_norm(self, state: Tensor) -> Tensor:
        return self.vision_model.post_layernorm(state)

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        return self.vision_model.head(self._last_norm(state))


class NaflexTower(SiglipTower):
    """A published SigLIP 2 NaFlex. A frame has up to `max_num_patches` patches, in its own aspect ratio.

    Pixels (B, 1 + S, d): row 0 begins with the rows and columns of the grid, then its patches. Features after the last
    real patch of a frame are zero, and there are as many as the frame with the most has.
    """

    kinds = (Siglip2VisionConfig, Siglip2VisionModel)

    def __init__(self, config: TowerConfig) -> None:
        if config.pad_square:
            raise ValueError("NaFlex keeps the aspect ratio: leave pad_square out")
        super().__init__(config)

    def _rule(self) -> PatchRule:
        return PatchRule.from_config(self.config.preprocessor)

    def prepare(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        patches, _, grids = super().prepare(frames)
        head = torch.zeros(len(grids), 1, patches.shape[2])
        head[:, 0, :2] = grids
        return torch.cat([head, patches], 1)

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.vision_model.embeddings(pixels[:, 1:], pixels[:, 0, :2].long())

    def _real(self, pixels: Tensor) -> Tensor:
        count = pixels[:, 0, 0].long() * pixels[:, 0, 1].long()
        return torch.arange(pixels.shape[1] - 1, device=pixels.device) < count[:, None]

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        return self.vision_model.head(self._last_norm(state), real.long())
