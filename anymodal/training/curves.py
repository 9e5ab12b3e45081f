"""A picture of a training run: metrics.jsonl -> curves.png, a panel for each stage and measure."""

from __future__ import annotations

import json
from pathlib import Path

from anymodal.errors import InputError, OutputError, need

_NOT_MEASURES = frozenset({"stage", "step", "steps", "time", "steps_per_s", "samples_per_s", "eta_s"})
COLUMNS = 4


def read_metrics(path: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """metrics.jsonl -> {stage: {measure: [(step, value), ...]}}.

    A resumed run repeats the steps since its last checkpoint: the later row counts. A last line cut short by a kill
    is left out. Raises InputError if there is no row.
    """
    rows: dict[tuple[str, int], dict] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["stage"], row["step"]] = row
    if not rows:
        raise InputError(f"{path} holds no metrics", fix="train for at least 20 steps first")
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for (stage, step), row in sorted(rows.items(), key=lambda item: (item[1].get("time", 0), item[0][1])):
        for key, value in row.items():
            if key not in _NOT_MEASURES and isinstance(value, int | float):
                stages.setdefault(stage, {}).setdefault(key, []).append((step, value))
    return stages


def draw_curves(metrics: Path, picture: Path) -> Path:
    """Draw every measure of every stage over steps. Returns the picture's path."""
    need("matplotlib", extra="train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(stage, name, points) for stage, measures in read_metrics(metrics).items()
              for name, points in measures.items()]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * min(COLUMNS, len(panels)), 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (stage, name, points) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, min(COLUMNS, len(panels)), number)
        axes.plot(*zip(*sorted(points)), linewidth=1)
        axes.set_title(f"{stage}: {name}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    try:
        figure.savefig(picture, dpi=110)
    except OSError as error:
        raise OutputError(f"{picture} cannot be written: {error.strerror}", fix="check the folder") from error
    return picture
