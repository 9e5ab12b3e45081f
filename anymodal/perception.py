"""Encoders and adapters of a bundle: windows of signals in, a few tokens per window and modality out.

Stateless: a window's tokens depend on that window alone, so windows of many streams can share a batch.
Shapes: B windows, T steps, P features a step, D feature width, Q queries, N LM width, E joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.adapters.attention import spread
from anymodal.asked import Instructions, pool
from anymodal.config import BundleSpec, build_part
from anymodal.errors import ConfigError, MediaError
from anymodal.stages.items import IMAGE, Percept
from anymodal.types import Signal, Tokens, Window

DIRECTIONS = 3  # in which strangeness is measured

# What a batch is made of, by the sense's pixels. 16-bit levels go as int32: torch has uint16 tensors, and for most of
# them no arithmetic.
BATCHED = {None: np.float32, "rgb8": np.uint8, "gray16": np.int32}


class Familiarity(nn.Module):
    """How much a window's features look like those seen in training, in [0, 1].

    A Gaussian over mean features, in the few directions in which strange windows depart most from training's
    (`anymodal.training.calibrate`); 1 up to the training windows' usual Mahalanobis distance, falling to 0 at a
    multiple of it (Lee et al. 2018, arXiv 1807.03888).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whiten", torch.zeros(width, DIRECTIONS))  # all zero: not fitted, everything is familiar
        self.register_buffer("usual", torch.ones(2))  # distances at which it is 1 and 0

    def forward(self, features: Tensor) -> Tensor:
        distance = ((features.float() - self.mean.float()) @ self.whiten.float()).norm(dim=-1)
        low, high = self.usual.float()
        return ((high - distance) / (high - low).clamp(min=1e-6)).clamp(0, 1)


class Perception(nn.Module):
    """All encoders and adapters of a bundle, by modality."""

    def __init__(self, spec: BundleSpec, lm_width: int) -> None:
        super().__init__()
        self.spec, self.lm_width = spec, lm_width
        self.encoders = nn.ModuleDict()
        self.adapters = nn.ModuleDict()
        self.familiarity = nn.ModuleDict()
        self.instructions: Instructions | None = None  # for adapters that read the question
        for name, modality in spec.modalities.items():
            encoder = build_part(modality.encoder, spec.trust)
            self.encoders[name] = encoder
            if modality.adapter is not None:
                self.adapters[name] = build_part(modality.adapter, spec.trust, feature_width=encoder.width,
                                                 lm_width=lm_width)
            elif not hasattr(encoder, "perceive") or encoder.width != lm_width:
                raise ConfigError(f"modalities.{name} has no adapter, and its encoder makes no tokens of width {lm_width}",
                                  fix="give it an adapter made for the language model")
            if spec.checkpoint is None:  # else what it was trained on is not known
                self.familiarity[name] = Familiarity(encoder.width)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def features(self, modality: str, signals: Tensor, *, once: bool = False) -> tuple[Tensor, Tensor]:
        """Raw signals -> features (B, T, P, D) and joint embeddings (B, E).

        pictures: (B, T, H, W, C), each frame a step. Others: (B, samples[, axes]), one step a window.
        `once`: encode equal frames once.
        """
        encoder = self.encoders[modality]
        if signals.dim() == 5:
            batch, steps = signals.shape[:2]
            patches, joint = _distinct(encoder, signals.flatten(0, 1)) if once else encoder(signals.flatten(0, 1))
            if joint is not None:
                joint = nn.functional.normalize(joint.view(batch, steps, -1).mean(1), dim=-1)
            return patches.view(batch, steps, *patches.shape[1:]), joint
        patches, joint = encoder(signals)
        return patches[:, None], joint

    @torch.inference_mode()
    def encode(self, session: str, windows: Sequence[Window]) -> list[list[Tokens]]:
        """Tokens of each window: one entry per stream whose modality the bundle knows, in prompt order."""
        return self.encode_many([(session, window) for window in windows])

    @torch.inference_mode()
    def encode_many(self, items: Sequence[tuple[str, Window]], *, rows: int | None = None,
                    once: bool = False) -> list[list[Tokens]]:
        """The same for windows of many sessions in one batch per modality.

        `rows`: encode in batches of exactly so many, the last filled up with silence. Then a window's tokens do not
        depend, to the last bit, on what shares its batch: matrix products round differently for every shape. With
        several threads some CPUs round by the place in the batch, too; actors have one.
        `once`: encode equal frames of a batch once; with rows=1 that keeps a window's tokens its own, too.
        """
        found: list[list[Tokens]] = [[] for _ in items]
        for modality in self.spec.prompt.order:
            jobs = [(i, stream, signal) for i, (_, window) in enumerate(items)
                    for stream, signal in window.signals.items() if signal.modality == modality]
            size = rows or max(1, len(jobs))
            for at in range(0, len(jobs), size):
                self._encode_batch(modality, jobs[at : at + size], items, found, size, once)
        return found

    def _encode_batch(self, modality: str, jobs: list[tuple[int, str, Signal]], items: Sequence[tuple[str, Window]],
                      found: list[list[Tokens]], rows: int, once: bool) -> None:
        encoder = self.encoders[modality]
        if modality not in self.adapters:  # a model whose tokens are not an adapter's rows: it makes them itself
            for i, stream, signal in jobs:
                session, window = items[i]
                try:
                    made = encoder.perceive(signal, self.spec.window_s)
                except ValueError as error:
                    raise MediaError(f"{stream!r} at {window.t0_s:g} s cannot be read by this model: {error}",
                                     fix="give other media, or mend the modality in the bundle") from error
                found[i].append(Tokens(session, stream, window.index, self._named(modality, signal), window.t0_s,
                                       window.t1_s, **made))
            return
        adapter = self.adapters[modality]
        signals = [signal for _, _, signal in jobs]
        if hasattr(encoder, "prepare"):
            features, joint, valid = self._prepared(modality, signals, once)
        else:
            batch, valid = self._batch(modality, signals, rows)
            features, joint = self.features(modality, batch, once=once)
        if getattr(adapter, "question_conditioned", False):
            self._keep(modality, jobs, items, found, features, valid)
            return
        states = adapter(features, valid)
        embeds = adapter.project(states)
        if embeds.shape[-1] != self.lm_width:
            raise ConfigError(f"the {modality} adapter makes tokens of width {embeds.shape[-1]}, the language model takes "
                              f"{self.lm_width}", fix=f"use an adapter made for a width of {self.lm_width}")
        real = spread(valid, embeds.shape[1]) if getattr(adapter, "per_step", False) else None  # others are of no frame
        familiar = self._familiar(modality, features, valid)
        # What each of an adapter's queries says is found again better than the whole window's.
        joint = adapter.joint(states) if hasattr(adapter, "joint") else None if joint is None else joint[:, None]
        for row, (i, stream, signal) in enumerate(jobs):
            session, window = items[i]
            own = embeds[row] if real is None else embeds[row][real[row]]
            found[i].append(Tokens(session, stream, window.index, self._named(modality, signal), window.t0_s, window.t1_s,
                                   own.float().cpu().numpy(), None if joint is None else joint[row].float().cpu().numpy(),
                                   familiar[row]))

    def _keep(self, modality: str, jobs: list[tuple[int, str, Signal]], items: Sequence[tuple[str, Window]],
              found: list[list[Tokens]], features: Tensor, valid: Tensor) -> None:
        """Tokens without embeds, which say under which name their features are kept."""
        if self.instructions is None:
            raise ConfigError(f"the adapter of modalities.{modality} reads the question, and the bundle does not say how",
                              fix="give it an `asked`: docs/models.md")
        nothing, familiar = np.zeros((0, self.lm_width), np.float32), self._familiar(modality, features, valid)
        for row, (i, stream, signal) in enumerate(jobs):
            session, window = items[i]
            found[i].append(Tokens(session, stream, window.index, self._named(modality, signal), window.t0_s, window.t1_s,
                                   nothing, familiarity=familiar[row],
                                   features=self.instructions.kept.put(modality, features[row], valid[row])))

    @torch.inference_mode()
    def pool(self, question: str, percepts: Sequence[Percept]) -> list[Percept]:
        """Those of the windows whose features are still kept, with tokens for this question."""
        return pool(self.instructions, self.adapters, question, percepts)

    def _named(self, modality: str, signal: Signal) -> str:
        """What a signal is laid out as."""
        template = self.spec.prompt.template
        return IMAGE if signal.still and template is not None and IMAGE in template.window else modality

    def _familiar(self, modality: str, features: Tensor, valid: Tensor) -> list[float]:
        if modality not in self.familiarity:
            return [1.0] * len(features)
        weight = valid[..., None].to(features.dtype)
        mean = (features.mean(2) * weight).sum(1) / weight.sum(1)
        return self.familiarity[modality](mean).tolist()

    def _prepared(self, modality: str, signals: list[Signal], once: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """For an encoder that prepares what it takes: features (B, T, P, D), joint (B, E) or None, valid (B, T).

        Pictures come at their own size, each frame by itself; no rows are filled up.
        """
        encoder, sense = self.encoders[modality], self.spec.modalities[modality]
        weight = next(encoder.parameters())
        if not sense.is_picture:
            batch, valid = self._batch(modality, signals, len(signals))
            ready = encoder.prepare(batch.float().cpu().numpy(), sense.rate_hz)
            features, joint = encoder(ready.to(weight.device, weight.dtype))
            if features.dim() == 4:  # an encoder of clips makes steps of its own
                return features, joint, valid.to(features.device).expand(-1, features.shape[1])
            return features[:, None], joint, valid.to(features.device)
        steps = self._steps(modality)
        valid = torch.zeros(len(signals), steps, dtype=torch.bool)
        frames = []
        for row, signal in enumerate(signals):
            for at, frame in self._frames(modality, signal, steps):
                valid[row, at] = True
                frames.append(frame)
        where = list(range(len(frames)))
        if once:
            place: dict[tuple, int] = {}
            where = [place.setdefault((f.shape, f.tobytes()), len(place)) for f in frames]
            frames = [frames[where.index(i)] for i in range(len(place))]
        made, joint = encoder(encoder.prepare(frames).to(weight.device, weight.dtype))
        valid = valid.to(made.device)
        features = made.new_zeros(*valid.shape, *made.shape[1:])
        features[valid] = made[where]
        if joint is not None:
            each = joint.new_zeros(*valid.shape, joint.shape[-1])
            each[valid] = joint[where]
            joint = nn.functional.normalize(each.sum(1), dim=-1)
        return features, joint, valid

    def _steps(self, modality: str) -> int:
        """The most frames that a window has."""
        sense = self.spec.modalities[modality]
        known = self.adapters[modality].config if modality in self.adapters else None
        own = getattr(known, "steps", None)
        return own or round(sense.rate_hz * self.spec.window_s) + sense.closing

    def _frames(self, modality: str, signal: Signal, steps: int) -> list[tuple[int, np.ndarray]]:
        """A window's frames with their steps."""
        sense = self.spec.modalities[modality]
        start = round((signal.t0_s + 1e-6) % self.spec.window_s * sense.rate_hz)
        found = {start + i: frame for i, frame in enumerate(signal.data[: steps - start])}
        if signal.closing is not None and sense.closing:
            found[steps - 1] = signal.closing
        return list(found.items())

    def _batch(self, modality: str, signals: list[Signal], rows: int) -> tuple[Tensor, Tensor]:
        """Stack signals into `rows` rows, each sample at its place in the window; `valid` marks real steps."""
        sense, window_s = self.spec.modalities[modality], self.spec.window_s
        is_picture, rate_hz = sense.is_picture, sense.rate_hz
        length = self._steps(modality) if is_picture else round(rate_hz * window_s)
        first = signals[0].data
        out = np.zeros((rows, length, *first.shape[1:]), BATCHED[sense.pixels])
        valid = np.zeros((rows, length if is_picture else 1), bool)
        valid[len(signals) if is_picture else 0 :, 0] = True  # a row without any real step would be not-a-number
        for row, signal in enumerate(signals):
            start = round((signal.t0_s + 1e-6) % window_s * rate_hz)
            take = min(len(signal.data), length - start)
            out[row, start : start + take] = signal.data[:take]
            if is_picture:
                valid[row, start : start + take] = True
                if signal.closing is not None and sense.closing:
                    out[row, -1], valid[row, -1] = signal.closing, True
            elif signal.data.ndim > 1:  # a sensor holds its first and last readings
                out[row, :start], out[row, start + take :] = signal.data[0], signal.data[take - 1]
        return torch.from_numpy(out).to(self.device), torch.from_numpy(valid).to(self.device)


def _distinct(encoder: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's outputs for frames (F, H, W, 3), of which equal ones are encoded once."""
    place: dict[bytes, int] = {}
    where = [place.setdefault(frame.tobytes(), len(place)) for frame in frames.cpu().numpy()]
    first = [where.index(i) for i in range(len(place))]
    return tuple(part[where] for part in encoder(frames[first]))
