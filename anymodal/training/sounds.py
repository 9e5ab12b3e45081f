"""Stage `sounds`: the sound encoder and its adapter, so that a sound means the same however it is made.

They learn to say of any rendering what they said, when the stage began, of the same scene in plain sounds, with no echo and
no noise but white: the same soft tokens and joint embeddings. What reads those need not be trained again.
Shapes: B windows, Q queries, W their width, E joint width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.playground.sound import render_audio
from anymodal.playground.world import make_scene

HZ = 16000


@dataclass(frozen=True, slots=True)
class DrawSounds:
    """All windows of `scenes` scenes of 6 s, float32 (B, HZ), as they are and `plain`."""

    seed: int
    scenes: int

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        scenes = [make_scene("train", self.seed, step * self.scenes + i, seconds=6, things=1) for i in range(self.scenes)]
        return {name: np.concatenate([render_audio(s, HZ, plain=name == "plain").reshape(-1, HZ) for s in scenes])
                for name in ("varied", "plain")}


class SoundStage:
    """Trains what hears; all else stays as it is."""

    name = "sounds"

    def __init__(self, perception, *, seed: int = 51, scenes: int = 16) -> None:
        self.perception, self.options = perception, (seed, scenes)
        self.teacher = copy.deepcopy(perception).requires_grad_(False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.perception.encoders["audio"].named_parameters(prefix="encoders.audio")
        yield from self.perception.adapters["audio"].named_parameters(prefix="adapters.audio")

    def draw(self) -> Callable[[int], dict]:
        return DrawSounds(*self.options)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            meant = _heard(self.teacher, batch["plain"])
        found = _heard(self.perception, batch["varied"])
        tokens = (found[0] - meant[0]).square().mean() / meant[0].square().mean()
        alike = [nn.functional.cosine_similarity(a, b, dim=-1).mean() for a, b in zip(found[1:], meant[1:], strict=True)]
        parts = {"tokens": float(tokens.detach()), "joint": float(alike[0].detach()), "direct": float(alike[1].detach())}
        return tokens + (1 - alike[0]) + (1 - alike[1]), parts


def _heard(perception, samples: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Soft tokens (B, Q, W), their joint embeddings (B, Q, E) and those of the encoder (B, E) of sound (B, samples)."""
    adapter = perception.adapters["audio"]
    features, direct = perception.features("audio", torch.from_numpy(samples).to(perception.device))
    states = adapter(features, torch.ones(len(features), 1, dtype=torch.bool, device=features.device))
    return adapter.project(states).float(), adapter.joint(states).float(), direct.float()
