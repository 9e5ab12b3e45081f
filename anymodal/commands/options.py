"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A shipped bundle's name, or the path of a bundle's YAML.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line and question.")]
Imu = Annotated[Path | None, typer.Option(metavar="FILE", help="Short for --sidecar imu=FILE.")]
Sidecar = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A sensor table (CSV or JSONL with a time column). Repeatable."),
]
