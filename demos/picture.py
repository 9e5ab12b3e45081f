"""The picture in the README: a clip's frames, sound and device motion, and real answers with their evidence.

    python -m demos.picture docs/demo.png [--seed 0]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import anymodal
from anymodal.media import read_windows
from anymodal.playground.files import load_truth, render_clips
from anymodal.training.scoring import is_right
from anymodal.types import Answer, Window

KINDS = ("color", "shape", "count", "sound_what", "sound_when", "device_motion", "event_when", "motion", "size")
COLORS = {"video": "#2b6cb0", "audio": "#c05621", "imu": "#2f855a"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=6)
    options = parser.parse_args()
    agent = anymodal.load("tiny")
    with tempfile.TemporaryDirectory() as folder:
        (clip,) = render_clips(folder, split="demo", seed=options.seed, count=1, seconds=8)
        by_type = {q.type: q for q in load_truth(clip.with_suffix(".json")).questions}
        asked = [by_type[kind] for kind in KINDS if kind in by_type][: options.questions]
        with read_windows(clip, agent.spec) as reader:
            windows = list(reader)
        answers = agent.ask(clip, [q.question for q in asked])
    draw(windows, answers, [is_right(q, a.text) for q, a in zip(asked, answers)]).savefig(options.out, dpi=110)


def draw(windows: list[Window], answers: list[Answer], right: list[bool]) -> plt.Figure:
    """Frames on top, then the sound and the device's acceleration, then a line for each question."""
    figure = plt.figure(figsize=(11, 6.2), facecolor="white")
    grid = figure.add_gridspec(4, len(windows), height_ratios=[1.5, 0.5, 0.5, 0.52 * len(answers)], hspace=0.12,
                               wspace=0.04, left=0.02, right=0.98, top=0.97, bottom=0.05)
    for k, window in enumerate(windows):
        axis = figure.add_subplot(grid[0, k])
        axis.imshow(window.signals["video"].data[0], aspect=1.0)
        axis.set_title(f"{window.t0_s:.0f} s", fontsize=9, pad=2)
        axis.axis("off")
    for row, name in ((1, "audio"), (2, "imu")):
        axis = figure.add_subplot(grid[row, :])
        signal = np.concatenate([w.signals[name].data for w in windows])
        signal = signal if name == "audio" else np.linalg.norm(signal[:, :3], axis=1)
        times = np.arange(len(signal)) / windows[0].signals[name].rate_hz
        axis.plot(times, signal, color=COLORS[name], linewidth=0.6)
        axis.set_xlim(0, len(windows))
        axis.axis("off")
    axis = figure.add_subplot(grid[3, :])
    axis.set_xlim(0, len(windows))
    axis.set_ylim(len(answers), 0)
    for i, (answer, good) in enumerate(zip(answers, right)):
        axis.text(0, i + 0.3, answer.question, fontsize=10, va="center")
        axis.text(len(windows), i + 0.3, f"{answer.text}  {'✓' if good else '✗'}  ({answer.confidence:.2f})", fontsize=10,
                  va="center", ha="right", weight="bold", color="#22543d" if good else "#9b2c2c")
        axis.plot([0, len(windows)], [i + 0.72] * 2, color="#e2e8f0", linewidth=4, solid_capstyle="butt")
        for span in answer.evidence:
            axis.plot([span.start_s, span.end_s], [i + 0.72] * 2, color=COLORS[span.modality], linewidth=4,
                      solid_capstyle="butt")
    axis.axis("off")
    return figure


if __name__ == "__main__":
    main()
