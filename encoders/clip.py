"""CLIP's towers, through transformers: frames or text -> a sequence of features and a joint-space embedding.

`ClipVision` and `ClipText` are the default bundle's, small; `ClipTower` is a published one at its own size.
Shapes: B batch, H W pixels, P patches, L text tokens, D width, E joint width.
Source: Radford et al. 2021, arXiv 2103.00020; OpenCLIP: Cherti et al. 2022, arXiv 2212.07143.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from encoders.tower import TowerConfig, VisionTower, vision_part


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tower:
    width: int = 192
    layers: int = 4
    heads: int = 6
    mlp_width: int = 768
    joint: int = 128

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


class ClipVision(nn.Module):
    """uint8 frames (B, H, W, 3) -> patch features (B, P, D) and unit joint embeddings (B, E)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(_Tower):
        image_px: int = 96
        patch_px: int = 12
        mean: tuple[float, ...] = (0.4815, 0.4578, 0.4082)  # CLIP's own preprocessing constants
        std: tuple[float, ...] = (0.2686, 0.2613, 0.2758)

        def __post_init__(self) -> None:
            _Tower.__post_init__(self)
            if self.image_px % self.patch_px:
                raise ValueError(f"image_px {self.image_px} is not a multiple of patch_px {self.patch_px}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=config.width, intermediate_size=config.mlp_width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, image_size=config.image_px, patch_size=config.patch_px,
            projection_dim=config.joint, hidden_act="gelu", attn_implementation="sdpa"))
        self.register_buffer("mean", torch.tensor(config.mean) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std) * 255, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.model.visual_projection.weight.dtype
        pixels = ((frames.float() - self.mean.float()) / self.std.float()).permute(0, 3, 1, 2).to(dtype)
        out = self.model(pixel_values=pixels)
        patches = self.model.vision_model.post_layernorm(out.last_hidden_state[:, 1:])
        return patches, nn.functional.normalize(out.image_embeds.float(), dim=-1)


class ClipText(nn.Module):
    """Token ids (B, L) and mask -> unit joint embeddings (B, E), read at the last real token."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(_Tower):
        width: int = 128
        layers: int = 3
        heads: int = 4
        mlp_width: int = 512
        vocab: int = 2048
        max_tokens: int = 32
        eos_id: int = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=config.vocab, hidden_size=config.width, intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, projection_dim=config.joint,
            max_position_embeddings=config.max_tokens, hidden_act="gelu", eos_token_id=config.eos_id,
            bos_token_id=0, pad_token_id=0, attn_implementation="sdpa"))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        out = self.model(input_ids=ids, attention_mask=mask)
        return nn.functional.normalize(out.text_embeds.float(), dim=-1)


class ClipTower(VisionTower):
    """A published CLIP's picture tower: OpenAI's (quick_gelu), or OpenCLIP's up to bigG (gelu) in transformers' layout.

    Tensors: `vision_model.*` and, with `joint`, `visual_projection.weight`.
    """

    own_norm = False  # transformers' last_hidden_state comes before post_layernorm

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        vision = vision_part(config.vision)
        known = CLIPVisionConfig.from_dict(vision, attn_implementation=config.attention)
        self.width = known.hidden_size
        self.vision_model = CLIPVisionModel._from_config(known)
        if config.joint:  # a whole CLIP's config says its width at the top; what the vision part repeats may be stale
            joint = config.vision.get("projection_dim", known.projection_dim)
            self.visual_projection = nn.Linear(known.hidden_size, joint, bias=False)
        self._finish()

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixels))

    def _blocks(self) -> Iterable[nn.Module]:
        return self.vision_model.encoder.layers

    def _last_norm(self, state: Tensor) -> Tensor:
        return self.vision_model.post_layernorm(state)

    def _pool(self, state: Tensor, real: Tensor | None) -> Tensor:
        return self.vision_model.post_layernorm(state[:, 0])

    def _project(self, pooled: Tensor) -> Tensor:
        return self.visual_projection(pooled)
