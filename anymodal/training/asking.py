"""Clips without files, and many questions at once: what measuring needs beside the path of `ask`.

    scene --scene_windows--> Windows --watch--> MindState --answer_batch--> texts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anymodal.config import BundleSpec
from anymodal.language.mind import Mind, MindState
from anymodal.perception import Perception
from anymodal.playground.fields import RENDER
from anymodal.playground.render import render_frames, render_imu
from anymodal.playground.sound import render_audio
from anymodal.playground.world import Scene
from anymodal.stages.items import Percept
from anymodal.types import Evidence, Signal, Window

BATCH = 16  # questions


# --- windows -----------------------------------------------------------------------------------------------------

def scene_windows(scene: Scene, spec: BundleSpec) -> list[Window]:
    """A scene rendered straight to the signals of its windows, on the grid that the file path has."""
    hop_s = spec.window_s
    count = int(np.ceil(scene.duration_s / hop_s - 1e-6))
    streams: dict[str, np.ndarray] = {}
    for name, modality in spec.modalities.items():
        if name == "video":
            times_s = np.arange(int(np.ceil(scene.duration_s * modality.rate_hz - 1e-6))) / modality.rate_hz
            streams[name] = render_frames(scene, times_s, modality.size_px, modality.size_px)
        elif name in RENDER:
            times_s = np.arange(int(np.ceil(scene.duration_s * modality.rate_hz - 1e-6))) / modality.rate_hz
            streams[name] = RENDER[name](scene, times_s, modality.size_px, modality.size_px)
        elif name in ("audio", "imu"):
            render = render_audio if name == "audio" else render_imu
            streams[name] = render(scene, modality.rate_hz if name == "imu" else int(modality.rate_hz))
    return [Window(k, k * hop_s, (k + 1) * hop_s, {n: _cut(n, d, k, hop_s, spec) for n, d in streams.items()})
            for k in range(count)]


def _cut(name: str, data: np.ndarray, k: int, hop_s: float, spec: BundleSpec) -> Signal:
    rate_hz = spec.modalities[name].rate_hz
    start, stop = (int(np.ceil(n * hop_s * rate_hz - 1e-6)) for n in (k, k + 1))
    closing = data[stop] if spec.modalities[name].is_picture and stop < len(data) else None
    return Signal(name, data[start:stop], rate_hz, start / rate_hz, closing)


def shuffle_frames(windows: Sequence[Window], seed: int = 0) -> list[Window]:
    """The same windows with the frames of the whole clip in another order; sound and sensors stay as they are."""
    shown = [(i, name) for i, w in enumerate(windows) for name, s in w.signals.items() if s.modality == "video"]
    if not shown:
        return list(windows)
    frames = np.concatenate([windows[i].signals[name].data for i, name in shown])
    frames = frames[np.random.default_rng(seed).permutation(len(frames))]
    out, at = list(windows), 0
    for i, name in shown:
        signal = windows[i].signals[name]
        end = at + len(signal.data)
        closing = None if signal.closing is None else frames[min(end, len(frames) - 1)]
        mixed = replace(signal, data=frames[at:end], closing=closing)
        out[i] = replace(out[i], signals={**out[i].signals, name: mixed})
        at = end
    return out


# --- questions ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer before calibration: `logprob` is the sum over its text and the token that ends it."""

    text: str
    logprob: float
    evidence: tuple[Evidence, ...]


def watch(perception: Perception, mind: Mind, windows: Sequence[Window]) -> MindState:
    """A session that has seen the windows."""
    state = mind.open()
    for window, tokens in zip(windows, perception.encode("clip", windows), strict=True):
        mind.extend(state, Percept.of("clip", window, tokens))
    return state


def answer_batch(mind: Mind, state: MindState, questions: Sequence[str], *,
                 barred: Sequence[str] = ()) -> list[RawAnswer]:
    """What `mind.answer` would say to each question, several at a time. `barred`: answers may not begin like these."""
    first = sorted({mind.tokenizer.encode(text)[0] for text in barred})
    found: list[RawAnswer] = []
    for at in range(0, len(questions), BATCH):
        found += _answer(mind, state, questions[at : at + BATCH], first)
    return found


@torch.inference_mode()
def _answer(mind: Mind, state: MindState, questions: Sequence[str], barred: list[int]) -> list[RawAnswer]:
    logprobs = [0.0] * len(questions)

    def heard(index: int, token: int, logprob: float, in_text: bool) -> None:
        logprobs[index] += logprob if in_text else 0.0

    readers = mind.answers(state, questions, barred=barred, heard=heard)
    return [RawAnswer(r.text, p, r.evidence()) for r, p in zip(readers, logprobs, strict=True)]
