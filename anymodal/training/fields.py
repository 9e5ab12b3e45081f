"""Stage `fields`: the encoders and adapters of depth and thermal pictures, alone.

Each patch that a thing covers learns its shape, and whether it is the nearest or the hottest one: without that, nothing
else begins to be learnt within hundreds of steps. Each token learns to say its words (`words.window_words`) through the
language model's own output layer, and its place in the joint space by contrast with phrases of the same words.
Shapes: B windows, F pictures, P patches, Q queries, E joint width, K phrases.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.playground.fields import fields_of, owners
from anymodal.playground.world import SHAPES, Scene, make_scene
from anymodal.training.clips import FIELD_HZ, field_signals
from anymodal.training.said import said_loss
from anymodal.training.words import window_words

PHRASES = {  # by modality, for each of its tokens: a phrase of every shape, then that of none
    "depth": ((*(f"nearest {s}" for s in SHAPES), "nothing near"),),
    "thermal": ((*(f"hottest {s}" for s in SHAPES), "nothing hot"),
                (*(f"{s} getting {w}" for w in ("warmer", "colder") for s in SHAPES), "nothing changes"))}


def phrase_of(words: tuple[str, ...], every: tuple[str, ...]) -> int | None:
    """Which phrase says what a token's words say; None: they name several things."""
    shapes = [w for w in words if w in SHAPES]
    if len(shapes) > 1:
        return None
    if not shapes:
        return len(every) - 1
    return SHAPES.index(shapes[0]) + (len(SHAPES) if "colder" in words else 0)


SHARE = 0.1  # of a patch that a thing must cover


def patch_labels(scene: Scene, times_s: np.ndarray, grid: int) -> dict[str, np.ndarray]:
    """For every patch of every picture, int (F, P): its shape, len(SHAPES) for none; and by modality whether it shows the
    nearest or the hottest thing of its picture, -1 where it shows none.
    """
    fine = 8
    pixels = owners(scene, times_s, grid * fine)
    cells = pixels.reshape(len(pixels), grid, fine, grid, fine).transpose(0, 1, 3, 2, 4).reshape(len(pixels), grid**2, -1)
    counts = np.stack([(cells == i).mean(-1) for i in range(len(scene.things))] or [np.zeros(cells.shape[:2])], -1)
    owner = np.where(counts.max(-1) >= SHARE, counts.argmax(-1), -1)
    shapes = np.array([*(SHAPES.index(t.shape) for t in scene.things), len(SHAPES)])
    fields, labels = fields_of(scene), {"shape": shapes[owner]}
    for modality in PHRASES:
        first = np.full(owner.shape, -1)
        for f, t_s in enumerate(times_s):
            shown = np.unique(pixels[f])
            rank = {int(i): fields.far_m[i] if modality == "depth" else -fields.celsius(i, t_s) for i in shown if i >= 0}
            if rank:
                first[f] = np.where(owner[f] >= 0, owner[f] == min(rank, key=rank.__getitem__), -1)
        labels[modality] = first
    return labels


@dataclass(frozen=True, slots=True)
class DrawFields:
    """`scenes` scenes of 6 s, `per_scene` windows of each; those in which something changes first."""

    seed: int
    scenes: int
    per_scene: int
    side_px: int
    grid: int

    def __call__(self, step: int) -> dict:
        pictures: list[dict[str, np.ndarray]] = []
        indices, valid, words, start = [], [], [], 0
        labels: list[dict[str, np.ndarray]] = []
        for i in range(self.scenes):
            index = step * self.scenes + i
            scene, dice = make_scene("train", self.seed, index, seconds=6), random.Random(index)
            chosen = self._windows(scene, dice)
            found, where, seen = field_signals(scene, chosen, self.side_px)
            pictures.append(found)
            indices.append(where + start)
            valid.append(seen)
            start += int(where.max()) + 1
            times_s = np.unique(chosen[:, None] * FIELD_HZ + np.arange(FIELD_HZ + 1)) / FIELD_HZ
            labels.append(patch_labels(scene, np.minimum(times_s, scene.duration_s - 1e-3), self.grid))
            words += [window_words(scene, int(k)) for k in chosen]
        return {"pictures": {n: np.concatenate([p[n] for p in pictures]) for n in pictures[0]},
                "index": np.concatenate(indices), "valid": np.concatenate(valid), "words": words,
                "labels": {n: np.concatenate([row[n] for row in labels]) for n in labels[0]}}

    def _windows(self, scene: Scene, dice: random.Random) -> np.ndarray:
        rank = {k: dice.random() - 0.5 * (window_words(scene, k)["thermal"][1] != ("nothing",)) for k in range(6)}
        return np.array(sorted(rank, key=rank.__getitem__)[: self.per_scene])


class FieldStage:
    """Trains the encoders and adapters of depth and thermal; the language model and the text tower stay as they are."""

    name = "fields"

    def __init__(self, perception, lm, tokenizer, text, *, seed: int = 9, scenes: int = 24, per_scene: int = 3,
                 only: Sequence[str] = tuple(PHRASES)) -> None:
        self.perception, self.lm, self.text, self.ids = perception, lm, text, cache(tokenizer.encode)
        self.options, self.phrases = (seed, scenes, per_scene), {name: PHRASES[name] for name in only}
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.heads = nn.ModuleDict({n: nn.Linear(perception.encoders[n].width, len(SHAPES) + 1 + 2) for n in self.phrases})
        self.heads.to(perception.device, next(perception.parameters()).dtype)
        lm.model.requires_grad_(False)
        text.requires_grad_(False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name in self.phrases:
            yield from self.perception.encoders[name].named_parameters(prefix=f"encoders.{name}")
            yield from self.perception.adapters[name].named_parameters(prefix=f"adapters.{name}")
        yield from self.heads.named_parameters(prefix="fields.heads")
        yield "fields.scale", self.scale

    def draw(self) -> Callable[[int], dict]:
        config = self.perception.encoders["depth"].config
        return DrawFields(*self.options, config.image_px, config.image_px // config.patch_px)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        device = self.perception.device
        index, valid = (torch.from_numpy(batch[name]).to(device) for name in ("index", "valid"))
        total, parts = torch.zeros((), device=device), {}
        for modality, groups in self.phrases.items():
            pictures = torch.from_numpy(batch["pictures"][modality].astype(np.float32)).to(device)
            patches, direct = self.perception.encoders[modality](pictures)
            total = total + self._dense(modality, patches, batch["labels"], parts)
            adapter = self.perception.adapters[modality]
            states = adapter(patches[index], valid)
            said = said_loss(self.lm, self.ids, {modality: adapter.project(states)[:, None]}, batch["words"])
            joint = adapter.joint(states)
            embedded = self.text([p for group in groups for p in group])
            total, start = total + said, 0
            for token, group in enumerate(groups):
                true = [phrase_of(w[modality][token], group) for w in batch["words"]]
                rows = [i for i, t in enumerate(true) if t is not None]
                goal = torch.tensor([true[i] for i in rows], device=device)
                logits = joint[rows, token] @ embedded[start : start + len(group)].T * self.scale.exp().clamp(max=60)
                start += len(group)
                total = total + 0.5 * nn.functional.cross_entropy(logits, goal)
                named = goal < len(group) - 1
                parts[f"{modality}_{token}"] = float((logits.argmax(-1) == goal)[named].float().mean())
            parts[f"said_{modality}"] = float(said.detach())
        return total, parts

    def _dense(self, modality: str, patches: Tensor, labels: dict[str, np.ndarray], parts: dict[str, float]) -> Tensor:
        """Cross-entropies of what each patch shows."""
        logits = self.heads[modality](patches).float()
        shape, first = (torch.from_numpy(labels[n]).to(patches.device) for n in ("shape", modality))
        shown = first >= 0
        chosen = shown | (torch.rand(shown.shape, device=shown.device) < 0.1)  # most patches are background
        names, ranks = logits[..., : len(SHAPES) + 1], logits[..., len(SHAPES) + 1 :]
        parts[f"patch_{modality}"] = float((names[shown].argmax(-1) == shape[shown]).float().mean())
        parts[f"first_{modality}"] = float((ranks[shown].argmax(-1) == first[shown]).float().mean())
        return (nn.functional.cross_entropy(names[chosen], shape[chosen])
                + nn.functional.cross_entropy(ranks[shown], first[shown]))
