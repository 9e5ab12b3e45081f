"""`anymodal eval`: how often a bundle is right on held-out clips, by question type, beside controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.commands.progress import bar, bars
from anymodal.errors import check_writable, need


def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A shipped bundle's name or a YAML.")] = "tiny",
    seed: Annotated[int, typer.Option(min=0, help="Which held-out clips; training never sees any of them.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="How many clips.")] = 500,
    seconds: Annotated[float, typer.Option(help="Length of every clip.")] = 8.0,
    controls: Annotated[bool, typer.Option(help="Run the controls too; they take about as long again.")] = True,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the rendered clips here.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the whole report as JSON too.")
    ] = None,
) -> None:
    """Render held-out clips, run them through the path of `ask`, and print exact match by question type.

    Beside it stand controls: no sensors, another clip's sensors, and frames in shuffled order.

    [bold]Examples[/bold]

        anymodal eval tiny

        anymodal eval tiny --seed 3 --count 50 --json accuracy.json
    """
    need("torch", extra="run")
    need("av", extra="run")
    from anymodal.training.evaluate import run_eval, write_json
    from anymodal.training.report import show_report

    if json_path:
        check_writable(json_path)
    with bars() as progress:
        show = bar(progress, "clips")
        report = run_eval(
            bundle, seed=seed, count=count, seconds=seconds, controls=controls, folder=keep, show=False,
            progress=lambda done, clips: show(done, clips, f"({clips - count} of pairs of words never trained on)"))
    show_report(report)
    if json_path:
        write_json(report, json_path)
