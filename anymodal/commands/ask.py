"""`anymodal ask`: questions about one clip, answered in one pass over it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from anymodal.commands.options import AsJson, Device, Dtype, Imu, Model, Sidecar
from anymodal.errors import InputError, MediaError, MissingExtraError, nearest, need
from anymodal.session.sqlite_file import is_log
from anymodal.types import Answer, Delta

NO_MEDIA = "-"
SENSES = ("video", "audio", "imu", "depth", "thermal")  # the usual ones; a bundle may have others
RUNTIMES = "anymodal.runtimes"  # entry points: name -> connect(address, model) -> a context manager with `stream`


def ask(
    media: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="A video, sound or image file, a folder of images, an http(s) address, or a session's log; - for no "
            "media.",
            show_default=False,
        ),
    ],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One or more questions.",
                                                   show_default=False)],
    at: Annotated[float | None, typer.Option(metavar="SECONDS", help="Answer as of this media time.")] = None,
    model: Model = "tiny",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
    imu: Imu = None,
    sidecar: Sidecar = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Refuse a clip without this: video, audio or a sensor. Repeatable."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="Images a second of a folder of images; 25 without it.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Answer on the running cluster at this address instead of in this process.")
    ] = None,
) -> None:
    """Ask about a clip: several questions share one pass over it.

    Text streams as it is generated; under each answer stand the times it relies on and its confidence.

    [bold]Examples[/bold]

        anymodal ask clip.mp4 "what colour is the circle?"

        anymodal ask clip.mp4 "what did you hear?" "when did the bell ring?"

        anymodal ask clip.mp4 "where is the square now?" --at 12.5

        anymodal ask clip.mp4 "how did the camera move?" --imu clip.imu.csv --json

        anymodal ask frames/ "what happened?" --rate 2

        anymodal ask - "what can you do?"
    """
    sidecars = parse_sidecars(sidecar or [], imu)
    given = None if media == NO_MEDIA else media
    of_log = given is not None and is_log(Path(given))
    if of_log and (address or sidecars or require or rate is not None):
        raise InputError(f"{given} is a session's log: it is asked as it is",
                         fix="leave --address, --sidecar, --imu, --require and --rate out")
    if rate is not None and not (given and Path(given).is_dir()):
        raise InputError(f"--rate {rate:g}: {given or 'no media'} is no folder of images", fix="leave --rate out")
    check_required(given, require or [], sidecars)
    with connect(address, model) if address else nullcontext(load(model, device, dtype)) as answerer:
        stream = (ask_log(answerer, given, questions, at) if of_log
                  else answerer.stream(given, questions, at_s=at, sidecars=sidecars, folder_rate_hz=rate))
        if as_json:
            write_json(stream, {"media": given, "model": model, **({} if at is None else {"at_s": at})})
        else:
            write_text(stream, questions)


def ask_log(agent: Any, log: str, questions: list[str], at_s: float | None) -> Iterator[tuple[int, Delta | Answer]]:
    """Answers from a session's log, beside whoever is writing it."""
    with agent.reopen(log, write=False) as session:
        for number, question in enumerate(questions):
            for piece in session.stream(question, at_s=at_s):
                yield number, piece


def parse_sidecars(pairs: list[str], imu: Path | None) -> dict[str, str]:
    """['imu=a.csv'] -> {'imu': 'a.csv'}. Raises InputError for a pair without a name or file, or a name given twice."""
    found: dict[str, str] = {} if imu is None else {"imu": str(imu)}
    for pair in pairs:
        name, _, file = pair.partition("=")
        if not name or not file:
            raise InputError(f"--sidecar {pair!r} is not NAME=FILE", fix="for example --sidecar imu=clip.imu.csv")
        if name in found:
            raise InputError(f"sidecar {name!r} is given twice", fix="give one file per sensor")
        found[name] = file
    return found


def check_required(media: str | None, required: list[str], sidecars: dict[str, str]) -> None:
    """Raise MediaError if the media lacks one of the modalities that must be there."""
    if not required:
        return
    if media is None:
        raise InputError(f"--require {required[0]}: there is no media", fix="give a clip, or leave --require out")
    from anymodal.media.info import probe

    info = probe(media)
    there = {s.modality for s in info.streams if s.decodable and not s.attached_picture}
    there |= {*info.sidecars, *sidecars}
    for modality in required:
        if modality not in there:
            lost = next((f": no decoder for {s.codec}" for s in info.streams if s.modality == modality), "")
            hint = "" if modality in SENSES else nearest(modality, {*SENSES, *there})
            raise MediaError(f"{media} has no usable {modality}{lost}, only {', '.join(sorted(there)) or 'nothing'}",
                             fix=hint if hint.startswith("did you mean") else
                             f"give a clip with {modality}, or leave --require {modality} out")


def load(model: str, device: str = "cpu", dtype: str = "float32") -> Any:
    """The agent of a bundle, in this process. Raises MissingExtraError without anymodal[run]."""
    need("torch", extra="run")
    need("transformers", extra="run")
    from anymodal.agent import load as load_agent

    return load_agent(model, device=device, dtype=dtype)


def connect(address: str, model: str) -> Any:
    """The pipeline on a running cluster, a context manager, through the package that brings it."""
    from anymodal.cli import load_added

    for point in entry_points(group=RUNTIMES):
        return load_added(point)(address, model)
    raise MissingExtraError("--address needs the Ray runtime", fix="pip install 'anymodal[run]'")


def write_json(stream: Iterator[tuple[int, Delta | Answer]], common: dict[str, Any]) -> None:
    """One line per finished answer, as it is finished."""
    for _, item in stream:
        if isinstance(item, Answer):
            print(json.dumps({**common, **item.to_json()}, ensure_ascii=False), flush=True)


def write_text(stream: Iterator[tuple[int, Delta | Answer]], questions: list[str]) -> None:
    """Text as it comes; a dim line of evidence and confidence under each answer."""
    console = Console(highlight=False, soft_wrap=True)
    current, begun = None, False
    for index, item in stream:
        if index != current:
            current, begun = index, False
            if len(questions) > 1:
                console.print(Text(questions[index], style="bold"))
        if isinstance(item, Delta):
            text = item.text if begun else item.text.lstrip()
            begun = begun or bool(text)
            console.print(Text(text), end="")
            sys.stdout.flush()
        else:
            console.print()
            console.print(Text(summary(item), style="dim"))


def summary(answer: Answer) -> str:
    """'1.0-2.0 s video | confidence 0.97 | 32 frames | first text after 0.05 s'."""
    spans = [f"{e.start_s:.1f}-{e.end_s:.1f} s {e.modality}" for e in answer.evidence]
    dropped = f", {answer.frames_dropped} dropped" if answer.frames_dropped else ""
    parts = [", ".join(spans) or "no evidence", f"confidence {answer.confidence:.2f}",
             f"{answer.frames_seen} frames{dropped}", f"first text after {answer.ttft_s:.2f} s"]
    return "  " + " | ".join(parts)
