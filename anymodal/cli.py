"""The command line: `anymodal COMMAND`. Commands live in `anymodal/commands/`, one file each.

Other packages add commands through the entry-point group `anymodal.commands`: an entry point's name is the
command's, and it loads to `main(argv) -> exit code`. It is loaded when its command is run, not before.

Exit codes: 0 done; 1 something is missing (`doctor`), or the reader of a pipe has gone; 2 wrong usage or question;
130 interrupted; others as in `anymodal/errors.py`. An error that a user can meet is one line on stderr:
`error: what is wrong (how to mend it)`.
"""

from __future__ import annotations

import ast
import logging
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from typer.core import TyperGroup

from anymodal import __version__
from anymodal.commands.ask import ask
from anymodal.commands.doctor import doctor
from anymodal.commands.evaluate import evaluate
from anymodal.commands.live import live
from anymodal.commands.models import models, pull
from anymodal.commands.playground import playground
from anymodal.commands.train import train
from anymodal.commands.watch import forget, watch
from anymodal.errors import AnymodalError, MissingExtraError, nearest
from anymodal.shadow import check_not_shadowed

GROUP = "anymodal.commands"
INTERRUPTED = 130
_UsageError = typer.BadParameter.__base__  # typer's parent of every "wrong usage", under its public child's name


class Commands(TyperGroup):
    """Our commands and those of entry points. A misspelt one names the nearest."""

    def list_commands(self, ctx) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_added())]

    def get_command(self, ctx, cmd_name: str):
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in _added():
            return _forwarding(_added()[cmd_name])
        return found

    def resolve_command(self, ctx, args):
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise _UsageError(f"no command {name!r}; {nearest(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _forwarding(point: EntryPoint):
    """A command that hands all its arguments, --help too, to an entry point."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")

    @app.command(
        point.name,
        help=_summary(point),
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def forward(ctx: typer.Context) -> None:
        raise typer.Exit(load_added(point)(list(ctx.args)) or 0)

    return typer.main.get_command(app)


def _summary(point: EntryPoint) -> str:
    """An entry point's docstring, read from the package beside ours: importing it takes ray, or a user's own `actors`."""
    path = Path(__file__).parent.parent.joinpath(*point.module.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == point.attr)
    text = " ".join((ast.get_docstring(next(named, ast.parse(""))) or f"Run {point.module}.").split())
    return escape(text)


def load_added(point: EntryPoint):
    """What an entry point names. Raises MissingExtraError naming the extra that it lacks."""
    check_not_shadowed()
    try:
        return point.load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`anymodal {point.name}` needs {error.name!r}, which is not installed", fix="pip install 'anymodal[run]'"
        ) from error


app = typer.Typer(
    name="anymodal",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in (("ask", ask), ("watch", watch), ("forget", forget), ("live", live), ("playground", playground),
                        ("train", train), ("eval", evaluate), ("models", models), ("pull", pull), ("doctor", doctor)):
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anymodal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask a video, a sound and its sensors; get answers with the times they rely on.

    Start with [bold]anymodal doctor[/bold], then [bold]anymodal ask clip.mp4 "what colour is the circle?"[/bold].
    """


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors a user can meet are one line on stderr."""
    show_warnings()
    try:
        code = int(app(args=argv, prog_name="anymodal", standalone_mode=False) or 0)
    except AnymodalError as error:
        return fail(str(error), error.exit_code)
    except _UsageError as error:
        ctx = error.ctx
        path = ctx.command_path if ctx is not None else "anymodal"
        return fail(f"{error.format_message()} (see `{path} --help`)", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # typer itself returns it where it was the first to notice
    return fail("interrupted", code) if code == INTERRUPTED else code


class _Warnings(logging.Handler):
    """Lets what the library logs, damaged media above all, be one line each on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"warning: {self.format(record)}", file=sys.stderr, flush=True)


def show_warnings() -> None:
    log = logging.getLogger("anymodal")
    if not any(isinstance(handler, _Warnings) for handler in log.handlers):
        log.addHandler(_Warnings(logging.WARNING))


def fail(message: str, code: int) -> int:
    """Print one line on stderr and return `code`."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def main() -> None:
    """The console script."""
    sys.exit(run())
