"""A video-QA job from end to end: render sample clips, start a Ray of our own, `ray job submit` the questions, and show
each answer beside the truth. Everything it starts, it stops; its files stay in the output folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from anymodal.config import load_spec
from anymodal.errors import AnymodalError, OutputError, RuntimeFault
from anymodal.playground.files import load_truth, render_clips
from anymodal.playground.questions import Question
from anymodal.training.scoring import is_right

WANTED = ("color", "count", "motion", "event_kind", "event_when", "sound_what", "sound_when", "device_motion",
          "place_now", "order", "unanswerable")  # types to prefer, one of each, taken in turn over the clips
JOB_TIMEOUT_S = 600.0
Asked = dict[tuple[str, int], Question]


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    console = Console()
    began_s = time.monotonic()
    try:
        load_spec(options.model)
        records, asked = run(options, console)
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    right = show(records, asked, console)
    console.print(f"{right} of {len(records)} right; {time.monotonic() - began_s:.0f} s in all; "
                  f"clips and answers are in {options.out}", highlight=False)
    return 4 if any(record["error"] for record in records) else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demos.video_qa", description=__doc__)
    parser.add_argument("--clips", type=int, default=4, help="how many sample clips (4)")
    parser.add_argument("--questions", type=int, default=3, help="questions on each clip (3)")
    parser.add_argument("--seed", type=int, default=0, help="which clips (0)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a clip (6)")
    parser.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where clips and answers go (demo-out)")
    return parser.parse_args(argv)


def run(options: argparse.Namespace, console: Console) -> tuple[list[dict[str, Any]], Asked]:
    """Returns the job's records and the question behind each."""
    from actors.head import Head

    try:
        shutil.rmtree(options.out / "answers", ignore_errors=True)
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written: {error.strerror}", fix="give another --out") from error
    with ExitStack() as stack:
        bars = stack.enter_context(Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                            TimeElapsedColumn(), console=console))
        head = stack.enter_context(Head())  # it starts while the clips are rendered
        rendering = bars.add_task("rendering clips", total=options.clips)
        clips = render_clips(options.out / "clips", split="demo", seed=options.seed, count=options.clips,
                             seconds=options.seconds, progress=lambda done, _: bars.update(rendering, completed=done))
        asked = write_manifest(options.out / "manifest.jsonl", clips, options.questions)
        starting = bars.add_task("starting Ray", total=1)
        head.wait_ready()
        bars.update(starting, completed=1)
        answers = options.out.absolute() / "answers"
        manifest = options.out.absolute() / "manifest.jsonl"
        job = head.submit([sys.executable, "-m", "actors.job", "--input", str(manifest), "--output", str(answers),
                           "--model", _anywhere(options.model)])
        stack.callback(job.wait)
        stack.callback(job.kill)
        answering = bars.add_task("answering", total=len(asked))
        said = follow(job, lambda: bars.update(answering, completed=len(read_records(answers))))
        records = read_records(answers)
        if len(records) < len(asked):
            raise RuntimeFault(f"the job ended with {len(records)} of {len(asked)} answers: {said}",
                               fix=f"run it by hand: python -m actors.job --input {manifest} --output {answers}")
    return records, asked


def _anywhere(model: str) -> str:
    """A bundle as the job's own folder sees it: a path becomes absolute, a name stays."""
    return str(Path(model).absolute()) if model.endswith((".yaml", ".yml")) else model


def write_manifest(path: Path, clips: list[Path], each: int) -> Asked:
    """A row per clip with a few questions of different types; the questions by (row's id, index)."""
    asked: Asked = {}
    turn = deque(WANTED)
    lines = []
    for clip in clips:
        by_type = {question.type: question for question in load_truth(clip.with_suffix(".json")).questions}
        chosen = [kind for kind in turn if kind in by_type][:each]
        chosen += [kind for kind in by_type if kind not in chosen][: each - len(chosen)]
        for kind in chosen:
            if kind in turn:  # to the end of the queue
                turn.remove(kind)
                turn.append(kind)
        asked |= {(clip.stem, index): by_type[kind] for index, kind in enumerate(chosen)}
        lines.append(json.dumps({"id": clip.stem, "media": str(clip.absolute()),
                                 "questions": [by_type[kind].question for kind in chosen]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return asked


def follow(job: subprocess.Popen, look: Callable[[], None]) -> str:
    """Wait for a job, calling `look` now and then; returns its error or its last words."""
    said: deque[str] = deque(maxlen=8)
    reader = threading.Thread(target=lambda: said.extend(line.rstrip() for line in job.stdout), daemon=True)
    reader.start()
    deadline_s = time.monotonic() + JOB_TIMEOUT_S
    while job.poll() is None:
        look()
        if time.monotonic() > deadline_s:
            raise RuntimeFault(f"the job did not end within {JOB_TIMEOUT_S:.0f} s", fix="free cores, or ask less")
        time.sleep(0.1)
    reader.join(timeout=5)
    look()
    return " / ".join([line for line in said if line.startswith("error:")] or said)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a job's answers so far."""
    path = folder / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def show(records: list[dict[str, Any]], asked: Asked, console: Console) -> int:
    """Print the table; returns how many answers are right."""
    table = Table(title="answers")
    for name in ("clip", "question", "answer", "truth", "evidence", "first text"):
        table.add_column(name, overflow="fold")
    right = 0
    for record in sorted(records, key=lambda record: (record["id"], record["question_index"])):
        question = asked[record["id"], record["question_index"]]
        if record["error"]:
            table.add_row(record["id"], Text(question.question), Text(record["error"]["message"], "red"), "", "", "")
            continue
        good = is_right(question, record["answer"])
        right += good
        spans = ", ".join(f"{e['start_s']:g}-{e['end_s']:g} s {e['modality']}" for e in record["evidence"])
        table.add_row(record["id"], Text(question.question), Text(record["answer"], "green" if good else "red"),
                      "right" if good else question.answer, spans, f"{record['time_to_first_token_s']:.2f} s")
    console.print(table)
    return right
