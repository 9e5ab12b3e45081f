"""`anymodal watch` and `anymodal forget`: a session that is kept in its log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from anymodal.commands.ask import load, parse_sidecars, write_json, write_text
from anymodal.commands.options import AsJson, Device, Imu, Keep, KeepBytes, Model, Sidecar
from anymodal.errors import InputError
from anymodal.types import Answer, Delta

WAIT_S = 24 * 3600.0  # for a question's time to come; a feed that ends earlier ends the wait
_TIMED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\S.*)", re.S)


def watch(
    media: Annotated[
        str | None,
        typer.Argument(metavar="[CLIP]", help="As of `ask`; none goes on with what the log was watching.",
                       show_default=False),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the session is kept; one that is there already is gone on with."),
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option(metavar='"SECONDS: QUESTION"', help="Ask at this media time; at the end without one. Repeatable."),
    ] = None,
    model: Model = "tiny",
    device: Device = "cpu",
    as_json: AsJson = False,
    imu: Imu = None,
    sidecar: Sidecar = None,
    keep: Keep = None,
    keep_bytes: KeepBytes = None,
) -> None:
    """Watch a clip as a session: ask while it is watched, break off, go on, and ask its log later.

    [bold]Examples[/bold]

        anymodal watch clip.mp4 --log session.db --ask "3: what can you see?" --ask "what did you hear?"

        anymodal watch --log session.db

        anymodal ask session.db "what happened?"
    """
    is_old = log is not None and log.exists()
    if media is None and not is_old:
        raise InputError("there is nothing to watch", fix="give a clip, or --log with a session to go on with")
    from anymodal.session.log import Retention

    sidecars = parse_sidecars(sidecar or [], imu)
    if media is None and sidecars:
        raise InputError(f"there is no clip that {', '.join(sidecars.values())} could be beside",
                         fix="leave --sidecar and --imu out: the log knows what it was watching")
    asked = sorted(map(parse_timed, ask or []), key=lambda pair: pair[0])
    retention = Retention(keep, keep_bytes)
    agent = load(model, device)
    with (agent.reopen(log, retention=retention) if is_old
          else agent.open(media, log=log, sidecars=sidecars, retention=retention)) as session:
        if is_old:
            session.feed(media, sidecars=sidecars)
        pieces = _answers(session, asked)
        if as_json:
            write_json(pieces, {"media": media, "model": model, "log": None if log is None else str(log)})
        else:
            write_text(pieces, [question for _, question in asked])
        session.wait()
        typer.echo(f"{session.windows} windows, {session.end_s:g} s" + (f", in {log}" if log else ""), err=True)


def _answers(session: Any, asked: list[tuple[float, str]]) -> Iterator[tuple[int, Delta | Answer]]:
    for number, (at_s, question) in enumerate(asked):
        if at_s == float("inf"):
            session.wait()
        for piece in session.stream(question, at_s=None if at_s == float("inf") else at_s, wait_s=WAIT_S):
            yield number, piece


def parse_timed(text: str) -> tuple[float, str]:
    """'30: what happened?' -> (30.0, 'what happened?'); without a time it is asked at the end, at infinity."""
    found = _TIMED.fullmatch(text)
    return (float(found[1]), found[2]) if found else (float("inf"), text)


def forget(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs of sessions.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Also a damaged file, or one that a cluster has open.")] = False,
) -> None:
    """Delete sessions and every trace of them. A session that is still being written is ended, but for one on a cluster:
    `anymodal stop NAME --forget` does that.

    [bold]Examples[/bold]

        anymodal forget session.db
    """
    from anymodal.session.sqlite_log import forget as forget_log

    for log in logs:
        for file in forget_log(log, force=force):
            typer.echo(f"deleted {file}")
