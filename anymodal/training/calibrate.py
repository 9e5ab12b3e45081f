"""What a trained bundle knows about itself: how familiar a signal looks, and how far to trust an answer.

    fit_familiarity   perception.safetensors: where training windows lie in feature space      first,
    fit_calibration   calibration.json: log-probability of an answer -> chance that it is right    then this;
                      and how readily a question is taken for one of another world

Both look at training and validation clips only. An answer's confidence is the second times the first.
Shapes: N windows, D feature width, A answers.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anymodal.agent import Agent, load
from anymodal.errors import OutputError
from anymodal.language.mind import Calibration
from anymodal.media import read_windows
from anymodal.perception import DIRECTIONS, Familiarity, Perception
from anymodal.playground.files import clip_truth, render_clip, senses_of
from anymodal.playground.questions import DESCRIPTIONS, Question
from anymodal.playground.world import make_scene
from anymodal.stages.items import Percept
from anymodal.training.asking import answer_batch, scene_windows
from anymodal.training.clips import coded
from anymodal.training.evaluate import PER_CLIP, balanced
from anymodal.training.outliers import strange_window
from anymodal.training.scoring import is_right
from anymodal.types import Answer, Window

SHRINK = 0.01  # of the features' mean variance, added to every direction: a few hundred scenes fit no full covariance
USUAL_QUANTILE = 0.996  # of validation windows are wholly familiar; an answer goes by the third that looks least so
REACH = 1.25  # of that distance, where familiarity is gone
DECLINED = 0.006  # of questions of the bundle's own world are taken for those of another one
SHORT_S = 2.0  # clips to fit on: many short ones show more backgrounds than a few long ones
SECONDS = 8.0

NATURAL_QUESTIONS: tuple[str, ...] = (
    "What colour is the circle?", "What color is the square?", "What colour is the large object?",
    "What shape is the red object?", "What shape is the blue object?", "What shape is the white object?",
    "Is the triangle small or large?", "How large is the star?", "How many objects are there?",
    "How many circles are there?", "How many red objects do you see?", "Is there a red circle?",
    "Is there a blue ring?", "Do you see a white square?", "Where is the circle now?",
    "Where is the white object at the end?",
    "Where was the cross at first?", "Where did the ring start?", "Which way does the circle move?",
    "Which way does the small object move?", "What happens to the star?", "What happens to the green object?",
    "When did the circle disappear?", "When did the red object bounce?", "What colour was the ring before it changed?",
    "What colour did the square become?", "Which came first, the bell ringing or the circle disappearing?",
    "Did the beep sound before the star appeared?", "What did you hear?", "What was the first sound?",
    "What was the last sound?", "Was the bell low or high?", "Was the beep low or high?", "When did the bell ring?",
    "When did the noise burst sound?", "Was the circle visible when the bell rang?",
    "Which sound was heard while the square was visible?", "Did you hear a noise burst?", "Is the circle red?",
    "Is the large object moving to the left?")
"""Questions of every type about the playground's world, to be asked about clips that are not of it."""


# --- familiarity -------------------------------------------------------------------------------------------------

def fit_familiarity(bundle: str | Path | Agent, *, clips: int = 800, seed: int = 0, files: int = 16,
                    progress: Callable[[int, int], None] | None = None) -> dict[str, tuple[float, float]]:
    """Fit where the features of training windows lie, and write it into the bundle's perception.safetensors.

    clips: of training; half as many strange windows tell in which directions to look, and a third as many validation
    clips, `files` of them as mp4, how far is usual. Returns the distances at which familiarity is 1 and 0, by
    modality. Raises OutputError if the weights cannot be written.
    """
    agent = bundle if isinstance(bundle, Agent) else load(bundle)
    sources = [(_drawn(agent, "train", seed, clips), clips), (_strange(agent, seed, clips // 2), clips // 2),
               (_drawn(agent, "val", seed, clips // 3), clips // 3), (_filed(agent, seed, files), files)]
    total, done = sum(count for _, count in sources), 0
    found: list[dict[str, list[Tensor]]] = []
    for source, _ in sources:
        found.append({})
        for windows in source:
            for modality, rows in mean_features(agent.perception, windows).items():
                found[-1].setdefault(modality, []).append(rows)
            done += 1
            if progress:
                progress(done, total)
    training, strange, drawn, filed = found
    for modality, rows in training.items():
        usual = torch.cat(drawn[modality] + filed[modality])
        fit(agent.perception.familiarity[modality], torch.cat(rows), usual, torch.cat(strange[modality]))
    _write_familiarity(agent)
    return {m: tuple(agent.perception.familiarity[m].usual.tolist()) for m in training}


def fit(part: Familiarity, rows_ND: Tensor, usual_ND: Tensor, strange_ND: Tensor) -> None:
    """Fill the buffers of `part` from mean features (N, D) of training windows, of usual windows, and of strange ones.

    The distance is Mahalanobis's within the few directions in which strange windows depart most from training's, in
    units of training's own spread (a generalised eigenproblem). Over all directions it would be mostly noise.
    """
    rows = rows_ND.double()
    mean = _rounded(rows.mean(0))
    centred = rows - mean
    covariance = centred.T @ centred / max(1, len(rows) - 1)
    covariance += SHRINK * covariance.diagonal().mean() * torch.eye(len(mean), dtype=covariance.dtype)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors / values.sqrt()
    strange = (strange_ND.double() - mean) @ whiten
    _, directions = torch.linalg.eigh(strange.T @ strange / len(strange))
    whiten = _rounded(whiten @ directions[:, -DIRECTIONS:])  # in order of rising eigenvalue
    distances = ((usual_ND.double() - mean) @ whiten).norm(dim=-1)
    low = float(torch.quantile(distances, USUAL_QUANTILE))
    for name, value in (("mean", mean), ("whiten", whiten), ("usual", torch.tensor([low, REACH * low]))):
        getattr(part, name).copy_(value)


def _rounded(value: Tensor) -> Tensor:
    """As bf16 keeps it, so that a bundle saved in bf16 measures the very same distances."""
    return value.to(torch.bfloat16).double()


@torch.inference_mode()
def mean_features(perception: Perception, windows: Sequence[Window]) -> dict[str, Tensor]:
    """What `Familiarity` is given for each window, float32 (N, D) by modality."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [part.register_forward_pre_hook(lambda _, given, m=m: seen.setdefault(m, []).append(given[0].float().cpu()))
             for m, part in perception.familiarity.items()]
    try:
        perception.encode("clip", windows)
    finally:
        for hook in hooks:
            hook.remove()
    return {modality: torch.cat(rows) for modality, rows in seen.items()}


def _drawn(agent: Agent, split: str, seed: int, clips: int) -> Iterator[list[Window]]:
    """Clips rendered to tensors, their frames as a codec may leave them."""
    for index in range(clips):
        windows = scene_windows(make_scene(split, seed, index, seconds=SHORT_S), agent.spec)
        yield [_coded(w, (seed, index)) for w in windows]


def _coded(window: Window, seed: tuple[int, int]) -> Window:
    video = window.signals.get("video")
    if video is None:
        return window
    pictures = [part if part is None else coded(part, np.random.default_rng(seed))  # the whole clip by one codec
                for part in (video.data, None if video.closing is None else video.closing[None])]
    video = replace(video, data=pictures[0], closing=None if pictures[1] is None else pictures[1][0])
    return replace(window, signals={**window.signals, "video": video})


def _filed(agent: Agent, seed: int, clips: int) -> Iterator[list[Window]]:
    """Clips through mp4."""
    with tempfile.TemporaryDirectory(prefix="anymodal-fit-") as folder:
        for index in range(clips):
            media = render_clip(Path(folder), split="val", seed=seed + 1, index=index, seconds=2 * SHORT_S,
                                modalities=senses_of(agent.spec))
            with read_windows(media, agent.spec) as reader:
                yield list(reader)


def _strange(agent: Agent, seed: int, count: int) -> Iterator[list[Window]]:
    for index in range(count):
        yield [strange_window(np.random.default_rng([seed, index]), agent.spec)]


def _write_familiarity(agent: Agent) -> None:
    from safetensors.torch import load_file, save_file

    path = agent.bundle.folder / "perception.safetensors"
    state = load_file(str(path))
    for key, value in agent.perception.state_dict().items():
        if key.startswith("familiarity."):
            state[key] = value.float().cpu().contiguous()
    beside = path.with_suffix(".part")
    try:
        save_file(state, str(beside), metadata={"format": "pt"})
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="copy the bundle to your own folder") \
            from error


# --- confidence --------------------------------------------------------------------------------------------------

def fit_calibration(bundle: str | Path | Agent, *, clips: int = 200, seed: int = 0, per_clip: int = PER_CLIP,
                    progress: Callable[[int, int], None] | None = None) -> Calibration:
    """Fit on validation clips how readily questions are declined, then the confidence of answers; writes calibration.json
    into the bundle's folder.

    Raises OutputError if it cannot be written.
    """
    agent = bundle if isinstance(bundle, Agent) else load(bundle)
    mind, asked = agent.bundle.mind, Counter()
    seen: list[tuple[list[Percept], list[Question]]] = []
    for index in range(clips):
        truth = clip_truth("val", seed + 2, index, seconds=SECONDS, modalities=senses_of(agent.spec))
        questions = [q for q in balanced(truth, asked, per_clip) if q.type not in DESCRIPTIONS]
        windows = scene_windows(truth.scene, agent.spec)
        tokens = agent.perception.encode("clip", windows)
        seen.append(([Percept.of("clip", w, t) for w, t in zip(windows, tokens, strict=True)], questions))
        if progress:
            progress(index + 1, 2 * clips)
    outside, mind.calibration = 0.0, Calibration()
    if agent.spec.point and agent.spec.point.outside:
        odds = [o for percepts, questions in seen
                for o in mind.strangeness(mind.open(None, percepts), [q.question for q in questions])]
        outside = round(max(0.0, -float(np.quantile(odds, 1 - DECLINED))), 4)
        mind.calibration = Calibration(outside=outside)
    logprobs, right = [], []
    for index, (percepts, questions) in enumerate(seen):
        state = mind.open(None, percepts)
        for question, answer in zip(questions, answer_batch(mind, state, [q.question for q in questions])):
            logprobs.append(answer.logprob)
            right.append(is_right(question, answer.text))
        if progress:
            progress(clips + index + 1, 2 * clips)
    mind.calibration = replace(platt(logprobs, right), outside=outside)
    path = agent.bundle.folder / "calibration.json"
    try:
        path.write_text(json.dumps(asdict(mind.calibration)) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="copy the bundle to your own folder") \
            from error
    return mind.calibration


def platt(logprobs: Sequence[float], right: Sequence[bool], steps: int = 100) -> Calibration:
    """sigmoid(scale * logprob + offset) that makes `right` likeliest, with Platt's smoothed targets (Platt 1999)."""
    x = np.stack([np.asarray(logprobs, float), np.ones(len(logprobs))], 1)
    hits = int(np.sum(right))
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(x) - hits + 2))
    weights = np.array([1.0, float(np.log((hits + 1) / (len(x) - hits + 1)))])
    for _ in range(steps):  # Newton, damped by a small ridge
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (p - target) + 1e-6 * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        move = np.linalg.solve(curve, slope)
        weights = weights - move * min(1.0, 2.0 / float(np.abs(move).max() + 1e-12))
        if np.abs(move).max() < 1e-9:
            break
    return Calibration(round(max(float(weights[0]), 0.0), 4), round(float(weights[1]), 4))


def natural_confidence(bundle: str | Path | Agent, paths: Sequence[str | Path],
                       questions: Sequence[str] = NATURAL_QUESTIONS, below: float = 0.5) -> dict[str, Any]:
    """How often the model doubts itself on footage that is not of its world: the share of answers `below`."""
    agent = bundle if isinstance(bundle, Agent) else load(bundle)
    by_clip: dict[str, list[float]] = {}
    for path in paths:
        answers = [a for a in agent.ask(path, list(questions)) if isinstance(a, Answer)]
        by_clip[Path(path).name] = [a.confidence for a in answers]
    every = [c for values in by_clip.values() for c in values]
    return {"n": len(every), "share_below": float(np.mean(np.array(every) < below)), "mean": float(np.mean(every)),
            "by_clip": {name: float(np.mean(np.array(values) < below)) for name, values in by_clip.items()}}
