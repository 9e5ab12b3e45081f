"""Video QA over many files: `python -m actors.job --input manifest.jsonl --output out/`.

Rows of the manifest (see `actors/manifest.py`) are asked of a Pipeline, several at once, and recorded as they are
answered (see `actors/results.py`). A job that was killed continues where it was when it is started again. A row that
cannot be answered is recorded with its error, and counts as done unless --retry-failed is given. A row that met a
fault of the runtime is tried again at the end, alone, at most twice, so that a clip that kills its decoder takes no
other row with it.

Runs in the Ray that RAY_ADDRESS names (as under `ray job submit`), else starts one of its own.
Exit codes: 0 all rows answered; 4 some were not; others as in `anymodal/errors.py`; 130 and 143 when stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from actors.manifest import Row, read_manifest
from actors.report import Meter, show, summarise
from actors.results import Results, answered, failed
from anymodal.errors import AnymodalError, ManifestError, QuestionError, RuntimeFault, need
from anymodal.types import Answer

if TYPE_CHECKING:
    from actors.pipeline import Pipeline

ATTEMPTS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)
Records = list[dict[str, Any]]
Todo = tuple[Row, list[int]]  # a row, and the indices of its questions to ask


class Stopped(BaseException):
    """A signal asked the job to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main(argv: list[str] | None = None) -> int:
    """Ask about many files over a cluster, resumable: a manifest in, answers as JSONL out."""
    options = parse_arguments(argv)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        catch_signals()
        return run(options)
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Stopped as stopped:
        print("stopped; the same command continues where it was", file=sys.stderr, flush=True)
        return stopped.exit_code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m actors.job", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, metavar="MANIFEST", help="JSON lines: id, media, question(s), at")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where answers are written")
    parser.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    parser.add_argument("--retry-failed", action="store_true", help="ask again what an earlier run could not answer")
    parser.add_argument("--concurrency", type=int, metavar="N", help="rows at once (the bundle's runtime.clips)")
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS"),
                        help="a running Ray: auto, HOST:PORT or ray://HOST:PORT (RAY_ADDRESS, else one of its own)")
    options = parser.parse_args(argv)
    if options.concurrency is not None and options.concurrency < 1:
        parser.error(f"--concurrency is {options.concurrency}, at least 1")
    return options


def run(options: argparse.Namespace) -> int:
    """Ask every row that has no record yet. Raises AnymodalError for what concerns the job as a whole."""
    began_s = time.monotonic()
    rows = read_manifest(options.input)
    need("pyarrow", extra="run")
    results = Results(options.output, options.model, retry_failed=options.retry_failed)
    try:
        todo = [(row, left) for row in rows if (left := results.missing(row))]
        with Meter(total=len(rows), done=len(rows) - len(todo)) as meter:
            for row, _ in todo:
                if row.error:
                    record(results, meter, [failed(row, 0, row.error, options.model)])
            sound = [(row, left) for row, left in todo if not row.error]
            if sound:
                ask_all(sound, options, results, meter)
        summary = summarise(rows, results, options.model, time.monotonic() - began_s, len(todo))
        results.finish(rows, summary)
    finally:
        results.close()
    show(summary, options.output)
    return ManifestError.exit_code if summary["rows_failed"] else 0


def ask_all(todo: list[Todo], options: argparse.Namespace, results: Results, meter: Meter) -> None:
    """Rows side by side; then those that met a fault of the runtime, one at a time."""
    from actors.pipeline import Pipeline

    meter.say("starting the actors")
    with Pipeline(options.model, options.address, clips=options.concurrency) as pipeline:
        catch_signals()  # Ray has put its own in their place
        faulty = []
        for item, outcome in side_by_side(partial(ask, pipeline, options.model), todo, pipeline.runtime.clips):
            if isinstance(outcome, RuntimeFault):
                faulty.append(item)
            else:
                record(results, meter, outcome)
        for row, left in faulty:
            record(results, meter, ask_again(pipeline, options.model, row, left))


def side_by_side(work: Callable[[Row, list[int]], Any], todo: Iterable[Todo], width: int) -> Iterator[tuple[Todo, Any]]:
    """(item, work(*item)), `width` items at once, as they are finished."""
    pending = iter(todo)
    threads = ThreadPoolExecutor(width, thread_name_prefix="row")
    running: dict[Future, Todo] = {}
    try:
        while True:
            for item in islice(pending, width - len(running)):
                running[threads.submit(work, *item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def ask(pipeline: Pipeline, model: str, row: Row, left: list[int]) -> Records | RuntimeFault:
    """A row's records, errors of its own included; a fault of the runtime is handed back, to be tried again."""
    wrong: dict[int, QuestionError] = {}
    for index in left:
        try:
            pipeline.check(row.questions[index])
        except QuestionError as error:
            wrong[index] = error
    records = [failed(row, index, error, model) for index, error in wrong.items()]
    sound = [index for index in left if index not in wrong]
    if not sound:
        return records
    warnings: list[str] = []
    try:
        pieces = pipeline.stream(row.path, [row.questions[index] for index in sound], at_s=row.at_s,
                                 sidecars=row.sidecars, warnings=warnings)
        answers = [piece for _, piece in pieces if isinstance(piece, Answer)]
    except RuntimeFault as fault:
        return fault
    except AnymodalError as error:
        return records + [failed(row, index, error, model) for index in sound]
    return records + [answered(row, index, answer, model, warnings) for index, answer in zip(sound, answers)]


def ask_again(pipeline: Pipeline, model: str, row: Row, left: list[int]) -> Records:
    """Try a row alone, on restarted actors. Raises RuntimeFault when they do not come back."""
    for _ in range(ATTEMPTS - 1):
        pipeline.wait_ready()
        outcome = ask(pipeline, model, row, left)
        if not isinstance(outcome, RuntimeFault):
            return outcome
    return [failed(row, index, outcome, model) for index in left]


def record(results: Results, meter: Meter, records: Records) -> None:
    results.add(records)
    meter.advance(any(each["error"] for each in records))


def catch_signals() -> None:
    """Raise Stopped in the main thread on Ctrl-C and SIGTERM."""

    def stop(number: int, _frame: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # once is enough: let it clean up
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)


if __name__ == "__main__":
    sys.exit(main())
