"""Stage `windows`: every modality's Q-Former (and the audio and IMU encoders) by contrast with hard negatives.

Names are told apart by image-text contrast with the max over queries, as in BLIP-2: "red circle" against every name
that is not in the window. What holds of an object is told apart by its name: the name's embedding picks the queries
that carry it, and what they hold must tell "at the top left" from the eight other places, "moves left" from the other
motions, and so on, against learned prototypes. With phrases ("red circle at the top left") in place of prototypes the
text tower sees no reason to tell the places apart until the queries do, and the other way round: both stayed at chance.
Shapes: B windows, Q queries, W their width, E joint width, K phrases of a group.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.playground.world import VISUAL_EVENTS, make_scene, rng_for
from anymodal.training.claims import (
    ASPECTS,
    HEARD,
    MOVED,
    NUMBERS,
    Fact,
    motion_claims,
    sight_claims,
    sound_claims,
)
from anymodal.training.clips import clip_signals, join
from anymodal.training.said import said_loss
from anymodal.training.words import window_words


@dataclass(frozen=True, slots=True)
class DrawWindows:
    """`scenes` scenes of 6 s, `per_scene` windows of each, windows with events first.

    `reuse` steps in a row show the same windows with other claims, so that their frames are encoded once.
    """

    seed: int
    scenes: int
    per_scene: int
    reuse: int
    image_px: int

    def __call__(self, step: int) -> dict:
        clips, claims, facts, words = [], [], [], []
        for i in range(self.scenes):
            index = step // self.reuse * self.scenes + i
            rng = rng_for("train", self.seed + 1_000_000, index)
            scene = make_scene("train", self.seed, index, seconds=6)
            dice = random.Random(index)
            eventful = {int(e.t_s) for t in scene.things for e in t.events}
            eventful |= {int(s.t0_s) for s in scene.sounds} | {int(m.t0_s) for m in scene.motions}
            order = sorted(range(6), key=lambda k: dice.random() - 0.45 * (k in eventful))
            windows = np.array(order[: self.per_scene])
            clips.append(clip_signals(scene, self.image_px, windows, rng=rng))
            for k in windows.tolist():
                sight, about = sight_claims(scene, k, dice)
                claims.append({"video": sight, "audio": sound_claims(scene, k), "imu": motion_claims(scene, k)})
                facts.append(about)
                words.append(window_words(scene, k))
        return {"signals": join(clips), "claims": claims, "facts": facts, "words": words, "key": step // self.reuse}


class WindowStage:
    """Trains the Q-Formers, the audio and IMU encoders and the text tower; the frame encoder stays as it is.

    said: weighs what each token should say, read by a language model that stays as it is; words and facts of events weigh
    `events` times as much. frames: the frame encoder learns, too; a batch is then drawn for one step.
    """

    name = "windows"

    def __init__(self, perception, text, lm, tokenizer, *, seed: int = 2, scenes: int = 16, per_scene: int = 4,
                 reuse: int = 2, said: float = 0.0, events: float = 1.0, frames: bool = False) -> None:
        self.perception, self.text, self.lm, self.seed = perception, text, lm, seed
        self.scenes, self.per_scene, self.reuse = scenes, per_scene, 1 if frames else reuse
        self.ids, self.said, self.events = cache(tokenizer.encode), said, events
        self.frozen = ClipFeatures(perception, learn=frames)
        self.scale = nn.Parameter(torch.tensor(2.5))
        width = perception.adapters["video"].config.width
        self.heads = nn.ModuleDict({aspect: nn.Linear(width, len(words)) for aspect, words in ASPECTS.items()})
        self.heads.to(perception.device, next(perception.parameters()).dtype)
        perception.encoders["video"].requires_grad_(frames)
        lm.requires_grad_(False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.perception.named_parameters()
        yield from self.text.named_parameters(prefix="joint_text")
        yield from self.heads.named_parameters(prefix="windows.heads")
        yield "windows.scale", self.scale

    def draw(self) -> Callable[[int], dict]:
        return DrawWindows(self.seed, self.scenes, self.per_scene, self.reuse,
                           self.perception.encoders["video"].config.image_px)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, float]]:
        device = self.scale.device
        phrases = sorted({p for row in batch["claims"] for claims in row.values() for group, _ in claims for p in group})
        index = {p: i for i, p in enumerate(phrases)}
        embedded = self.text(phrases)
        total, parts = torch.zeros((), device=device), {}
        for modality in ("video", "audio", "imu"):
            features, mask, joint = self.frozen.features(modality, batch)
            adapter = self.perception.adapters[modality]
            states = adapter(features, mask)
            queries = adapter.joint(states)
            if modality == "video":
                total = total + self._facts(states, queries, embedded, batch["facts"], index, parts)
            if self.said:
                tokens = {modality: adapter.project(states)[:, None]}
                said = said_loss(self.lm, self.ids, tokens, batch["words"], self.events)
                total, parts[f"said_{modality}"] = total + self.said * said, float(said.detach())
            similarity = torch.einsum("bqe,pe->bqp", queries, embedded).amax(1) * self.scale.float().exp().clamp(max=60)
            total = total + self._claims(similarity, batch["claims"], modality, index, parts)
            if modality != "video":
                direct = joint @ embedded.T * self.scale.float().exp().clamp(max=60)
                total = total + 0.5 * self._claims(direct, batch["claims"], modality, index, {})
        return total, parts

    def _facts(self, states: Tensor, queries: Tensor, embedded: Tensor, rows: list[list[Fact]], index: dict[str, int],
               parts: dict) -> Tensor:
        """Summed mean cross-entropies over the aspects of every object, read from the queries that carry its name."""
        total = torch.zeros((), device=states.device)
        for aspect in ASPECTS:
            found = [(b, index[name], true) for b, row in enumerate(rows) for name, a, true in row if a == aspect]
            if not found:
                continue
            owner, name, true = torch.tensor(found, device=states.device).T
            share = (queries[owner] @ embedded[name][..., None] * 10.0).softmax(1)  # (facts, Q, 1)
            logits = self.heads[aspect]((states[owner].float() * share).sum(1).to(states.dtype)).float()
            weight = {"becomes": 0.3, "event": self.events}.get(aspect, 1.0)
            total = total + nn.functional.cross_entropy(logits, true) * weight
            parts[aspect] = float((logits.argmax(-1) == true).float().mean())
            if aspect == "event" and (true < len(VISUAL_EVENTS)).any():
                happened = true < len(VISUAL_EVENTS)
                parts["event_seen"] = float((logits.argmax(-1) == true)[happened].float().mean())
        return total

    def _claims(self, similarity: Tensor, rows: list[dict], modality: str, index: dict[str, int], parts: dict) -> Tensor:
        """Mean cross-entropy over all claims, and the share that is right by kind of group."""
        columns, targets, owners, kinds = [], [], [], []
        for b, row in enumerate(rows):
            for group, true in row[modality]:
                columns.append([index[p] for p in group])
                targets.append(true)
                owners.append(b)
                kinds.append(_kind(group))
        width = max(map(len, columns))
        gather = torch.tensor([c + [0] * (width - len(c)) for c in columns], device=similarity.device)
        real = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in columns], device=similarity.device).bool()
        goal = torch.zeros(len(columns), width, device=similarity.device)
        for i, true in enumerate(targets):
            goal[i, list(true)] = 1 / len(true)
        logits = similarity[torch.tensor(owners, device=similarity.device)[:, None], gather]
        logits = logits.masked_fill(~real, -1e4)
        loss = -(goal * torch.log_softmax(logits, -1)).sum(-1)
        right = goal.gather(1, logits.argmax(-1, keepdim=True))[:, 0] > 0
        for kind in set(kinds):
            chosen = torch.tensor([k == kind for k in kinds], device=similarity.device)
            parts[kind] = float(right[chosen].float().mean())
        return loss.mean()


class ClipFeatures:
    """Features of training clips. Unless the frame encoder is to `learn`, it is run without gradient and once per `key`."""

    def __init__(self, perception, learn: bool = False) -> None:
        self.perception, self.learn = perception, learn
        self._key, self._patches = None, None

    def features(self, modality: str, batch: dict) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features (B, T, P, D), valid steps (B, T), and joint embeddings (B, E) of all but video."""
        device, signals = self.perception.device, batch["signals"]
        if modality in signals.fields:
            pictures = torch.from_numpy(signals.fields[modality].astype(np.float32)).to(device)  # torch computes no uint16
            patches, _ = self.perception.encoders[modality](pictures)
            return (patches[torch.from_numpy(signals.fields_index).to(device)],
                    torch.from_numpy(signals.fields_valid).to(device), None)
        if modality != "video":
            samples = torch.from_numpy(getattr(signals, modality)).to(device)
            features, joint = self.perception.features(modality, samples)
            return features, torch.ones(len(features), 1, dtype=torch.bool, device=device), joint
        if self.learn or self._key != batch["key"]:
            with torch.set_grad_enabled(self.learn):
                self._patches, _ = self.perception.encoders["video"](torch.from_numpy(signals.frames).to(device))
            self._key = batch["key"]
        return self._patches[torch.from_numpy(signals.index).to(device)], torch.from_numpy(signals.valid).to(device), None


def _kind(group: tuple[str, ...]) -> str:
    kinds = {NUMBERS: "count", HEARD: "sound", MOVED: "device"}
    return kinds.get(group, "name")
