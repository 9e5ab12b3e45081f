"""Stage `frames`: the frame encoder and the text tower, bound by dense and global contrast.

Each patch that an object covers is contrasted with the phrases of every object name (dense), and each frame's class
token with the captions of the batch (global, CLIP). Without this, learning from answers alone stalls.
Shapes: B frames, P patches, E joint width, K phrases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.playground.render import render_frames, signed_distance
from anymodal.playground.world import COLORS, HELD_OUT_PAIRS, SHAPES, SIZES, Scene, rng_for, still_scene

PAIRS = tuple((c, s) for c in COLORS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)
PHRASES: dict[str, tuple[str, ...]] = {
    "color": COLORS,
    "shape": SHAPES,
    "size": tuple(f"{z} object" for z in SIZES),
    "whole": tuple(f"{z} {c} {s}" for z in SIZES for c, s in PAIRS),
}
NOTHING = "nothing"
IGNORE = -100


def caption(scene: Scene) -> str:
    names = [f"{t.size} {t.color} {t.shape}" for t in scene.things]
    return " and ".join(names) if names else NOTHING


def patch_labels(scene: Scene, grid: int) -> dict[str, np.ndarray]:
    """For every patch (P,), the index of the phrase it shows in each group; the last index is "nothing"."""
    fine = 3 * grid
    centre = (np.arange(fine, dtype=np.float32) + 0.5) / fine
    cover = np.zeros((len(scene.things), grid * grid), np.float32)
    for i, thing in enumerate(scene.things):
        u = (centre[None, :] - thing.xs[0]) * scene.aspect / thing.radius
        v = (centre[:, None] - thing.ys[0]) / thing.radius
        cos, sin = np.cos(thing.angle), np.sin(thing.angle)
        inside = signed_distance(thing.shape, u * cos + v * sin, -u * sin + v * cos) < (0.3 if thing.shape == "ring" else 0)
        cover[i] = inside.reshape(grid, 3, grid, 3).mean((1, 3)).ravel()
    labels = {group: np.full(grid * grid, len(names), np.int64) for group, names in PHRASES.items()}
    total = cover.sum(0) if len(cover) else np.zeros(grid * grid)
    for group in labels.values():
        group[(total > 0) & (total < 0.3)] = IGNORE
    for i, thing in enumerate(scene.things):
        mine = (cover[i] >= 0.3) & (cover[i] >= cover.max(0)) | (cover[i] >= max(cover[i].max(), 0.05))
        labels["color"][mine] = COLORS.index(thing.color)
        labels["shape"][mine] = SHAPES.index(thing.shape)
        labels["size"][mine] = SIZES.index(thing.size)
        labels["whole"][mine] = PHRASES["whole"].index(f"{thing.size} {thing.color} {thing.shape}")
    return labels


@dataclass(frozen=True, slots=True)
class DrawFrames:
    seed: int
    batch: int
    image_px: int
    grid: int

    def __call__(self, step: int) -> dict:
        frames, labels, captions = [], [], []
        for i in range(self.batch):
            rng = rng_for("train", self.seed, step * self.batch + i)
            scene = still_scene(rng)
            frames.append(render_frames(scene, np.array([rng.uniform(0, 8)]), self.image_px, self.image_px)[0])
            labels.append(patch_labels(scene, self.grid))
            captions.append(caption(scene))
        return {"frames": np.stack(frames), "captions": captions,
                **{group: np.stack([row[group] for row in labels]) for group in PHRASES}}


class FrameStage:
    """Trains `encoder` (ClipVision) with `text` (TextSide)."""

    name = "frames"

    def __init__(self, encoder: nn.Module, text, *, seed: int = 1, batch: int = 128) -> None:
        self.encoder, self.text, self.seed, self.batch = encoder, text, seed, batch
        self.scale = nn.Parameter(torch.tensor(2.5))

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.encoder.named_parameters(prefix="encoders.video")
        yield from self.text.named_parameters(prefix="joint_text")
        yield "frames.scale", self.scale

    def draw(self) -> Callable[[int], dict]:
        config = self.encoder.config
        return DrawFrames(self.seed, self.batch, config.image_px, config.image_px // config.patch_px)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        device = self.scale.device
        patches, cls = self.encoder(torch.from_numpy(batch["frames"]).to(device))
        dense = nn.functional.normalize(self.encoder.model.visual_projection(patches).float(), dim=-1)
        captions = sorted(set(batch["captions"]))
        names = [*(p for group in PHRASES.values() for p in group), NOTHING]
        embedded = self.text(names + captions)
        scale = self.scale.float().exp().clamp(max=100)
        total, parts, start = 0.0, {}, 0
        nothing = embedded[len(names) - 1 : len(names)]
        for group, phrases in PHRASES.items():
            classes = torch.cat([embedded[start : start + len(phrases)], nothing])
            start += len(phrases)
            labels = torch.from_numpy(batch[group]).to(device)
            keep = labels != IGNORE
            shown = keep & (labels < len(phrases))
            empty = keep & ~shown & (torch.rand(labels.shape, device=device) < 0.1)  # most patches are background
            chosen = shown | empty
            logits = scale * dense[chosen] @ classes.T
            total = total + nn.functional.cross_entropy(logits, labels[chosen])
            right = (scale * dense[shown] @ classes.T).argmax(-1) == labels[shown]
            parts[group] = float(right.float().mean())
        similarity = scale * cls @ embedded[len(names) :].T
        target = torch.tensor([captions.index(c) for c in batch["captions"]], device=device)
        total = total + 0.5 * nn.functional.cross_entropy(similarity, target)
        parts["caption"] = float((similarity.argmax(-1) == target).float().mean())
        return total, parts
