"""ImageBind: pictures, text, sound, depth, thermal and IMU -> one joint space of 1024 dimensions.

Girdhar et al. 2023, arXiv 2305.05665. Written anew from the architecture's description; tensors have the names and shapes
of the published `imagebind_huge.pth`, so that one's own copy loads strictly. Those weights are CC BY-NC-SA 4.0: not for
commercial use. Only the tower of the modality asked for is built. For inference: drop-path and dropout are left out.
`encoders.imagebind_input` makes the inputs.
Shapes: B items, S clips of an item, C channels, P patches, L tokens (class token and patches), D width, E joint width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from encoders.imagebind_input import MODALITIES, Inputs

MEANINGS = ("scaled", "unit", "tokens")
LOGIT_SCALE = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}  # fixed; vision has none, text learns its own
MOST_TEXT_SCALE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkSize:
    """Width, layers and heads of a modality's transformer; `patch` its stem's side (IMU: rows), `stride` between them."""

    width: int
    layers: int
    heads: int
    patch: int = 0
    stride: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


HUGE = {
    "vision": TrunkSize(width=1280, layers=32, heads=16, patch=14, stride=14),
    "text": TrunkSize(width=1024, layers=24, heads=16),
    "audio": TrunkSize(width=768, layers=12, heads=12, patch=16, stride=10, channels=1),
    "depth": TrunkSize(width=384, layers=12, heads=8, patch=16, stride=16, channels=1),
    "thermal": TrunkSize(width=768, layers=12, heads=12, patch=16, stride=16, channels=1),
    "imu": TrunkSize(width=512, layers=6, heads=8, patch=8, stride=8, channels=6),
}


class ImageBind(nn.Module):
    """What `prepare` makes of one modality's signals -> features (B, P, D), unit joint embeddings (B, E).

    An input with clips, (B, S, ...), is encoded clip by clip. Of the published file the tensors with the modality in their
    names: `modality_preprocessors.audio.*` and so on; names here are the same.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """meaning: what the features are, of the three things that published systems call ImageBind's.

        "scaled": the head's vector, of length 1, times the modality's scale (sound 20, depth 5, thermal 10, IMU 5, text its
        learnt one, pictures none), as Video-LLaMA, PandaGPT and NExT-GPT feed it: (B, 1, E). "unit": of length 1 again
        after that, as ImageBind-LLM and CoDi-2 do. "tokens": the trunk's output without the head, class token first, as
        BuboGPT does: (B, L, D). average: the mean over clips, of scaled vectors, not normalised again (so it is shorter
        than the scale); else each clip is a step: (B, S, P, D), as Video-LLaMA's audio branch reads them.
        size: another size than the published one, for small checkpoints in the same layout.
        """

        modality: str = "vision"
        meaning: str = "scaled"
        average: bool = True
        inputs: Inputs = field(default_factory=Inputs)
        joint: int = 1024
        vocab: int = 49408
        max_text: int = 77
        size: TrunkSize | None = None

        def __post_init__(self) -> None:
            if self.modality not in MODALITIES:
                raise ValueError(f"modality {self.modality!r} is none of {', '.join(MODALITIES)}")
            if self.meaning not in MEANINGS:
                raise ValueError(f"meaning {self.meaning!r} is none of {', '.join(MEANINGS)}")
            for name, kind in (("size", TrunkSize), ("inputs", Inputs)):
                if isinstance(value := getattr(self, name), dict):  # from YAML; a trunk's gaps are the published one's
                    base = {} if kind is Inputs else {k: getattr(HUGE[self.modality], k) for k in TrunkSize.__slots__}
                    object.__setattr__(self, name, kind(**{**base, **value}))

        @property
        def trunk(self) -> TrunkSize:
            return self.size or HUGE[self.modality]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.modality, size = config.modality, config.trunk
        self.width = size.width if config.meaning == "tokens" else config.joint
        self.modality_preprocessors = nn.ModuleDict({self.modality: _stem(config)})
        self.modality_trunks = nn.ModuleDict({self.modality: Trunk(self.modality, size)})
        self.modality_heads = nn.ModuleDict({self.modality: _head(self.modality, size.width, config.joint)})
        self.modality_postprocessors = nn.ModuleDict(
            {} if self.modality == "vision" else {self.modality: nn.ModuleList([nn.Identity(), _scale(self.modality)])})

    @property
    def rate_hz(self) -> int:
        """The rate of the sound that is encoded."""
        return self.config.inputs.rate_hz

    def prepare(self, signals: Any, rate_hz: float | None = None) -> Tensor:
        """Frames, samples, pictures of one channel, rows or texts -> the input: `encoders.imagebind_input`."""
        return self.config.inputs.prepare(self.modality, signals, rate_hz)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        clips = None
        if self.modality in ("vision", "audio") and x.dim() == (6 if self.modality == "vision" else 5):
            clips, x = x.shape[1], x.flatten(0, 1)
        stem, head = self.modality_preprocessors[self.modality], self.modality_heads[self.modality]
        tokens = self.modality_trunks[self.modality](stem(x if x.dtype == torch.long else x.to(self.dtype)))
        first = x.argmax(1) if self.modality == "text" else torch.zeros(len(x), dtype=torch.long, device=x.device)
        pooled = head(tokens[torch.arange(len(tokens), device=x.device), first])  # the end mark has the highest id
        vectors = nn.functional.normalize(pooled.float(), dim=-1) * self.scale()
        features = tokens if self.config.meaning == "tokens" else vectors[:, None]
        if clips is not None:
            features, vectors = (v.unflatten(0, (-1, clips)) for v in (features, vectors))
            vectors = vectors.mean(1)
            features = features.mean(1) if self.config.average else features
        if self.config.meaning == "unit":
            features = nn.functional.normalize(features, dim=-1)
        return features.to(self.dtype), nn.functional.normalize(vectors, dim=-1)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.modality_trunks.parameters()).dtype

    def scale(self) -> Tensor | float:
        """What unit vectors of the modality are multiplied with."""
        if self.modality == "vision":
            return 1.0
        scale = self.modality_postprocessors[self.modality][1].log_logit_scale.float().exp()
        return scale.clamp(max=MOST_TEXT_SCALE)


class Trunk(nn.Module):
    """Tokens (B, L, D) -> (B, L, D)."""

    def __init__(self, modality: str, size: TrunkSize) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.ModuleList([nn.LayerNorm(size.width, eps=1e-6)] if modality == "vision" else [])
        # every modality but pictures and text attends to one learnt key and value more
        extra = modality not in ("vision", "text")
        self.blocks = nn.ModuleList(Block(size.width, size.heads, extra) for _ in range(size.layers))
        self.causal = modality == "text"

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.pre_transformer_layer:
            x = norm(x)
        mask = None
        if self.causal:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        for block in self.blocks:
            x = block(x, mask)
        return x


class Block(nn.Module):
    """A pre-norm transformer block (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int, extra: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=extra, batch_first=True)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        seen = self.norm_1(x)
        x = x + self.attn(seen, seen, seen, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm_2(x))))


class PatchStem(nn.Module):
    """Pictures or mel frames (B, C, H, W), pictures with a time of two (B, 3, 2, H, W) -> tokens (B, L, D)."""

    def __init__(self, modality: str, size: TrunkSize, high: int, wide: int) -> None:
        super().__init__()
        rows, columns = ((n - size.patch) // size.stride + 1 for n in (high, wide))
        if modality == "vision":
            proj: nn.Module = nn.Sequential(nn.Identity(), nn.Conv3d(
                size.channels, size.width, (2, size.patch, size.patch), (2, size.stride, size.stride), bias=False))
        else:
            proj = nn.Conv2d(size.channels, size.width, size.patch, size.stride, bias=False)
        self.stem = "depth_stem" if modality == "depth" else "rgbt_stem"
        parts: dict[str, nn.Module] = {"proj": proj}
        if modality != "vision":
            parts["norm_layer"] = nn.LayerNorm(size.width)
        self.add_module(self.stem, nn.ModuleDict(parts))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embedding_helper = nn.ParameterDict(
            {"pos_embed": nn.Parameter(torch.zeros(1, rows * columns + 1, size.width))})
        self.video = modality == "vision"

    def forward(self, x: Tensor) -> Tensor:
        if self.video and x.dim() == 4:
            x = x[:, :, None].expand(-1, -1, 2, -1, -1)  # a picture is a film that stands still
        parts = self.get_submodule(self.stem)
        x = parts["proj"](x).flatten(2).transpose(1, 2)
        x = parts["norm_layer"](x) if "norm_layer" in parts else x
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding_helper["pos_embed"]


class TextStem(nn.Module):
    """Ids (B, L) -> tokens (B, L, D)."""

    def __init__(self, width: int, vocab: int, length: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, length, width))
        # the published file carries the causal mask; attention makes its own
        self.register_buffer("mask", torch.full((length, length), -math.inf).triu(1))
        self.token_embedding = nn.Embedding(vocab, width)

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[1] != self.pos_embed.shape[1]:
            raise ValueError(f"texts are {self.pos_embed.shape[1]} ids long, found {ids.shape[1]}")
        return self.token_embedding(ids) + self.pos_embed


class ImuStem(nn.Module):
    """Accelerometer and gyroscope (B, 6, T) -> tokens (B, L, D): each patch is 8 rows, axis by axis."""

    def __init__(self, size: TrunkSize, rows: int) -> None:
        super().__init__()
        self.patch = size.patch
        self.imu_stem = nn.ModuleDict({"proj": nn.Linear(size.channels * size.patch, size.width, bias=False),
                                       "norm_layer": nn.LayerNorm(size.width)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, rows // size.patch + 1, size.width))

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unfold(2, self.patch, self.patch).transpose(1, 2).flatten(2)
        x = self.imu_stem["norm_layer"](self.imu_stem["proj"](patches))
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed


def _stem(config: ImageBind.Config) -> nn.Module:
    size, inputs = config.trunk, config.inputs
    if config.modality == "text":
        return TextStem(size.width, config.vocab, config.max_text)
    if config.modality == "imu":
        return ImuStem(size, inputs.imu_rows)
    high, wide = (inputs.mel_bins, inputs.mel_frames) if config.modality == "audio" else (inputs.image_px, inputs.image_px)
    return PatchStem(config.modality, size, high, wide)


def _head(modality: str, width: int, joint: int) -> nn.Module:
    if modality == "text":
        return nn.Sequential(OrderedDict(proj=nn.Sequential(nn.LayerNorm(width, eps=1e-6),
                                                            nn.Linear(width, joint, bias=False))))
    # the places in the published list hold what picks the class token and, for IMU, dropout
    between = [nn.Identity()] * (2 if modality == "imu" else 1)
    return nn.Sequential(nn.LayerNorm(width, eps=1e-6), *between, nn.Linear(width, joint, bias=False))


def _scale(modality: str) -> nn.Module:
    value = torch.tensor(math.log(LOGIT_SCALE.get(modality, 1 / 0.07)))
    scale = nn.Module()
    if modality == "text":
        scale.log_logit_scale = nn.Parameter(value)
    else:
        scale.register_buffer("log_logit_scale", value)
    return scale
