"""The small transformer that the audio and sensor encoders share.

Shapes: B batch, P patches, d patch size, D width, E joint width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchTransformer(nn.Module):
    """Flat patches (B, P, d) -> features (B, P, D) and a unit joint embedding (B, E) from a class token."""

    def __init__(self, patch_dim: int, patches: int, width: int, layers: int, heads: int, joint: int) -> None:
        super().__init__()
        self.stem = nn.Linear(patch_dim, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, patches + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, width * 4, dropout=0.0, activation="gelu",
                                           batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, joint, bias=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(patches.to(self.stem.weight.dtype))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        x = self.norm(self.blocks(x))
        return x[:, 1:], nn.functional.normalize(self.head(x[:, 0]).float(), dim=-1)
