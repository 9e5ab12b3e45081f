"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A model's name (`anymodal models`), the path of a bundle's YAML, or the folder "
                                         "or hub id of a checkpoint.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda or cuda:0.")]
Dtype = Annotated[str, typer.Option(help="What it computes in: float32, bfloat16 or float16.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line and question.")]
Imu = Annotated[Path | None, typer.Option(metavar="FILE", help="Short for --sidecar imu=FILE.")]
Keep = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="The log drops windows and turns that are older; by itself none.")
]
KeepBytes = Annotated[int | None, typer.Option(metavar="N", help="The log drops its oldest where it is larger than this.")]
Sidecar = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A sensor table (CSV or JSONL with a time column). Repeatable."),
]
