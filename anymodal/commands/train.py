"""`anymodal train`: a bundle's recipe, stage by stage, with progress and a picture of the curves."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from anymodal.commands.progress import bar, bars
from anymodal.errors import ConfigError, nearest, need

DRAW_EVERY_S = 180.0


def train(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's YAML or a shipped bundle's name.",
                                          show_default=False)],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    only: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run this stage alone. Repeatable.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and metrics; runs/NAME without it.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from nothing, not from the bundle's weights.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw training data.")] = 1,
) -> None:
    """Train a bundle by the `training` section of its YAML.

    The run's folder gets checkpoints, metrics, a picture of the curves, and the weights after each stage. A run that
    was killed at any moment goes on where it was when the same command is given again. A new run goes on with the
    stages that the bundle's weights have not been through; with --fresh it starts from nothing.

    [bold]Examples[/bold]

        anymodal train configs/tiny.yaml

        anymodal train configs/tiny.yaml --fresh --device cuda --workers 12

        anymodal train configs/tiny.yaml --only language
    """
    need("transformers", extra="train")
    need("matplotlib", extra="train")
    from anymodal.agent import check_device
    from anymodal.config import load_spec
    from anymodal.training.curves import draw_curves
    from anymodal.training.recipe import open_recipe, plans

    check_device(device)
    spec, _ = load_spec(bundle)
    stages = {plan.name: plan for plan in plans(spec)}
    if not stages or spec.joint_text is None:
        raise ConfigError(f"{bundle} cannot be trained: it has no {'training.stages' if not stages else 'joint_text'}",
                          fix="add it, see configs/tiny.yaml")
    for name in only or ():
        if name not in stages:
            raise ConfigError(f"no stage {name!r} in {bundle}", fix=nearest(name, stages))
    recipe = open_recipe(bundle, run, device, fresh=fresh)
    metrics, picture = recipe.run / "metrics.jsonl", recipe.run / "curves.png"
    with bars() as progress:
        report = Report({n: batch_size(p.options or {}) for n, p in stages.items()}, progress, metrics, picture)
        recipe.train(only=tuple(only or ()), workers=workers, report=report)
    if report.rows:
        typer.echo(f"weights in {recipe.weights}, curves in {draw_curves(metrics, picture)}")
    else:
        typer.echo(f"nothing left to train: {recipe.weights} went through every stage (--fresh starts from nothing)")


def batch_size(options: dict) -> int | None:
    """Samples in a stage's batch: frames or windows, or questions asked."""
    for keys in (("batch",), ("scenes", "per_scene"), ("clips", "questions")):
        if all(isinstance(options.get(key), int) for key in keys):
            return math.prod(options[key] for key in keys)
    return None


class Report:
    """Called with each row of metrics: moves the stage's bar, and draws the curves every DRAW_EVERY_S."""

    def __init__(self, batch_of: dict[str, int | None], progress: Progress | None, metrics: Path,
                 picture: Path) -> None:
        self.batch_of, self.progress, self.metrics, self.picture = batch_of, progress, metrics, picture
        self.rows = 0
        self._bars: dict = {}
        self._drawn_s = time.monotonic()

    def __call__(self, row: dict) -> None:
        self.rows += 1
        stage = row["stage"]
        if stage not in self._bars:
            self._bars[stage] = bar(self.progress, stage)
        self._bars[stage](row["step"], row["steps"], self.note(row))
        if time.monotonic() - self._drawn_s > DRAW_EVERY_S:
            from anymodal.training.curves import draw_curves

            draw_curves(self.metrics, self.picture)
            self._drawn_s = time.monotonic()

    def note(self, row: dict) -> str:
        """'loss 0.123 | 512 samples/s | ETA 0:12:30'."""
        batch = self.batch_of.get(row["stage"])
        rate = f"{row['steps_per_s'] * batch:.0f} samples/s" if batch else f"{row['steps_per_s']:.2f} steps/s"
        minutes, seconds = divmod(int(row["eta_s"]), 60)
        return f"loss {row['loss']:.3f} | {rate} | ETA {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
