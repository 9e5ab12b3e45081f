"""The loop that every training stage shares: data by step number, checkpoints, progress, metrics.

A batch is a pure function of (stage seed, step), so a run killed at any moment resumes with the batches it would
have seen. Checkpoints are written beside and renamed, so that a kill while writing loses nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from anymodal.training.optim import MasterOptimizer


class Stage(Protocol):
    """What a stage supplies: what it trains, how to draw a batch, and the loss on it."""

    name: str

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def draw(self) -> Callable[[int], Any]: ...  # a picklable function step -> batch of numpy arrays
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """A stage's schedule, as in the bundle's `training` section."""

    name: str
    steps: int
    lr: float = 1e-3
    muon_lr: float = 0.02
    warmup: float = 0.02
    decay_from: float = 0.4
    perception_lr: float = 1.0  # the share of the learning rates that everything but the language model gets
    average: float = 0.0  # share of the weights before the stage in those it leaves: Wortsman et al. 2022, arXiv 2109.01903
    options: dict[str, Any] | None = None


class _Steps(IterableDataset):
    def __init__(self, draw: Callable[[int], Any], first: int, last: int) -> None:
        self.draw, self.first, self.last = draw, first, last

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            _die_with_parent()
        for step in range(self.first + worker, self.last, workers):
            yield self.draw(step)


def _die_with_parent() -> None:
    """On Linux, let a worker of a killed run be killed too: it would wait for ever to hand over its next batch."""
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _as_is(batch: Any) -> Any:
    return batch


def batches(draw: Callable[[int], Any], first: int, last: int, workers: int) -> Iterator[Any]:
    """Batches of steps first..last-1 in order, drawn ahead in worker processes."""
    if workers == 0:
        return (draw(step) for step in range(first, last))
    return iter(DataLoader(_Steps(draw, first, last), batch_size=None, num_workers=workers, prefetch_factor=4,
                           collate_fn=_as_is, multiprocessing_context="spawn"))


def run_stage(stage: Stage, plan: StagePlan, folder: Path, *, workers: int = 1, save_every_s: float = 60.0,
              report: Callable[[dict], None] | None = None) -> None:
    """Train `stage` to the end of its plan, resuming from its checkpoint in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{plan.name}.ckpt"
    optimizer = MasterOptimizer(stage.trainable(), lr=plan.lr, muon_lr=plan.muon_lr, warmup=plan.warmup,
                                decay_from=plan.decay_from,
                                scale_of=lambda name: 1.0 if name.startswith("language.") else plan.perception_lr)
    first = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    saved_at = began = time.monotonic()
    metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
    running: dict[str, float] = {}
    step = first
    for step, batch in enumerate(batches(stage.draw(), first, plan.steps, workers), first):
        loss, parts = stage.loss(batch)
        loss.backward()
        norm = optimizer.step(step / plan.steps)
        for key, value in {"loss": float(loss.detach()), "grad": norm, **parts}.items():
            running[key] = value if key not in running else 0.95 * running[key] + 0.05 * value
        now = time.monotonic()
        if step % 20 == 19 or step + 1 == plan.steps:
            rate = (step + 1 - first) / (now - began)
            row = {"stage": plan.name, "step": step + 1, "steps": plan.steps, "time": round(time.time(), 1),
                   "steps_per_s": round(rate, 3), "eta_s": round((plan.steps - step - 1) / rate),
                   **{k: round(v, 4) for k, v in running.items()}}
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
            if report:
                report(row)
        if now - saved_at > save_every_s:
            save(checkpoint, {"step": step + 1, "optimizer": optimizer.state_dict()})
            saved_at = now
    save(checkpoint, {"step": max(step + 1, first), "optimizer": optimizer.state_dict()})
    metrics.close()


def save(path: Path, state: dict) -> None:
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    os.replace(beside, path)
