"""`anymodal models`: what can be run, under which licence, and what is here. `anymodal pull`: gets it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anymodal.commands.progress import bar, bars


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON list.")] = False,
) -> None:
    """List the models that run by name: modalities, size, licence, what they need, and whether they are here.

    Any folder or id of one of their architectures runs as well: [bold]--model FOLDER[/bold].

    [bold]Examples[/bold]

        anymodal models

        anymodal models --json
    """
    from anymodal.models import shipped

    found = shipped()
    if as_json:
        print(json.dumps([asdict(model) for model in found], indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "modalities", "size", "here", "licence"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "size"))
    for model in found:
        licence = Text("NOT FOR COMMERCIAL USE. " if model.non_commercial else "", "bold red")
        size = f"{model.size_gb:.1f} GB" if model.size_gb >= 0.1 else f"{model.size_gb * 1000:.0f} MB"
        table.add_row(model.name, ", ".join(model.modalities), size,
                      Text(model.here, "green" if model.here == "yes" else "yellow" if model.here != "no" else "dim"),
                      licence.append(model.licence, "default not bold"))
    console = Console(highlight=False)
    console.print(table)
    for model in found:
        for needed in model.needs:
            console.print(Text(f"{model.name} needs {needed}", "dim"))


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or an id of the hub.", show_default=False)],
) -> None:
    """Download a model's checkpoints: with progress, resumed where it was cut, each file verified.

    [bold]Examples[/bold]

        anymodal pull llava-1.5-7b

        anymodal pull llava-hf/llava-1.5-13b-hf
    """
    from anymodal.models import published_bundles
    from anymodal.pull import pull as fetch
    from anymodal.pull import sources

    wanted = sources(name)
    if not wanted:
        typer.echo(f"{name} came with anymodal: there is nothing to pull")
        return
    spec = next((s for s, _ in published_bundles().values() if name in (s.name, s.checkpoint.id)), None)
    if spec is not None:
        terms = " It is NOT FOR COMMERCIAL USE." if spec.checkpoint.non_commercial else ""
        typer.echo(f"{spec.name}: {spec.checkpoint.licence}.{terms}", err=True)
        for need in spec.checkpoint.needs:
            typer.echo(f"it needs {need}", err=True)
    with bars() as shown:
        for repo, patterns in wanted:
            tell = bar(shown, repo)
            folder = fetch(repo, patterns, lambda done, total, file, tell=tell: tell(
                done // 1_000_000, max(1, total // 1_000_000), f"MB {file}"))
            typer.echo(folder)
