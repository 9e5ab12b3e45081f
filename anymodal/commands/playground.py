"""`anymodal playground`: clips with their truth, rendered as real files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.commands.progress import bar, bars
from anymodal.errors import need


def playground(
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same clips.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many clips.")] = 20,
    seconds: Annotated[
        float | None, typer.Option(help="Length of every clip; of many lengths without it.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the clips go.")] = Path("clips"),
    split: Annotated[
        str, typer.Option(help="test, demo, compositional, val or train: no two share a clip.")
    ] = "test",
    modality: Annotated[
        list[str] | None, typer.Option(help="video, audio, imu, depth or thermal; several times for several. "
                                            "Without it: video, audio and imu.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that render at once.")] = 1,
) -> None:
    """Render clips of the playground: H.264 and AAC in mp4, an IMU sidecar, and the truth with questions as JSON.

    Depth and thermal pictures go beside them as 16-bit FFV1 in mkv.

    [bold]Examples[/bold]

        anymodal playground --seed 7 --count 20 --out clips/

        anymodal playground --seed 7 --count 5 --seconds 8 --out clips/

        anymodal playground --modality video --modality depth --modality thermal --count 3 --out clips/
    """
    need("av", extra="run")
    from anymodal.playground.files import USUAL, render_clips

    with bars() as progress:
        show = bar(progress, "rendering")
        render_clips(out, split=split, seed=seed, count=count, seconds=seconds, progress=show,
                     modalities=modality or USUAL, workers=workers)
    typer.echo(f"{count} clips in {out}")
