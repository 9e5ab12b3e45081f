"""`anymodal doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def doctor(
    model: Annotated[str, typer.Option(help="The bundle whose weights are tried.")] = "tiny",
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON list.")] = False,
) -> None:
    """Say what works on this machine, each with the command that mends it.

    Exit code 0 if questions about files can be answered here, 1 if not; what is optional does not count.

    [bold]Examples[/bold]

        anymodal doctor

        anymodal doctor --json
    """
    from anymodal.doctor import examine

    checks = examine(model)
    if as_json:
        print(json.dumps([check.to_json() for check in checks], indent=1, ensure_ascii=False))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "what", "found", "to mend it"):
            table.add_column(column, overflow="fold")
        for check in checks:
            style, mark = ("green", "ok") if check.ok else ("red", "missing") if check.core else ("yellow", "no")
            table.add_row(Text(mark, style), *map(Text, (check.name, check.found, "" if check.ok else check.fix)))
        Console().print(table)
    if not all(check.ok for check in checks if check.core):
        raise typer.Exit(1)
