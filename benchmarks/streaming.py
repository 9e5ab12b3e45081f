"""How a session holds up for hours: first tokens, memory and window latency against stream length.

    python -m benchmarks.streaming [--case tiny] [--case large] [--hours H] [--cpu-time] [--quick] [--json FILE]
                                   [--picture FILE]

Percepts of a few minutes of playground are stored, and replayed faster than real time into a real session with its log:
for `tiny`, the default bundle, 8 hours; for `large`, a language model of about 100 M random weights, 1 hour. Between the
minutes that are measured, windows reach the mind a batch at a time, as where a file is read ahead. Time to first token
runs from the call to the first piece at the caller. The baselines are the same model with a plain cache. Streams
for each core with the change gate are measured for `tiny`.
Ratios are ours / baseline, each taken in turns within this one run. `--cpu-time` counts the process's CPU seconds
instead of the wall's, for a machine that is busy with other work. `--quick` makes a minute of a few windows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from anymodal.bundle import Bundle, load_bundle  # noqa: E402
from anymodal.language.causal import CausalLM  # noqa: E402
from anymodal.language.forks import Forks, Trunk  # noqa: E402
from anymodal.language.mind import Calibration, Mind  # noqa: E402
from anymodal.language.prompt import question_ids  # noqa: E402
from anymodal.language.rows import Places  # noqa: E402
from anymodal.language.tokenizer import TextTokenizer  # noqa: E402
from anymodal.memory import Span  # noqa: E402
from anymodal.playground.streams import LongStream  # noqa: E402
from anymodal.playground.world import make_scene  # noqa: E402
from anymodal.session.local import new_session  # noqa: E402
from anymodal.session.session import Session  # noqa: E402
from anymodal.stages.items import Percept  # noqa: E402
from anymodal.stages.perceive import BATCH  # noqa: E402
from anymodal.training.asking import scene_windows  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402
from benchmarks.streaming_gate import gate_accuracy, watched  # noqa: E402

QUESTION, PAST = "what can you see?", "what could you see at 0:05?"  # the second brings windows back, once they were merged
LARGE = {"width": 768, "layers": 12, "heads": 12, "mlp_width": 2688}
HOURS = {"tiny": 8, "large": 1}
MINUTES = {"tiny": (1, 10, 30, 60, 120, 240, 480), "large": (1, 10, 60)}  # where the stream is asked
COMPARED, FEW = 10, 3  # the minute whose baselines are rows; elsewhere, for the picture, they are taken so few times
FORKS, PREFIX = 32, 4096


# --- what is measured ------------------------------------------------------------------------------------------------

@dataclass
class Point:
    """How things stand at a length of stream. Times in seconds, the median of several; memory in bytes."""

    minute: float
    ours_s: float
    rebuild_s: float
    last4_s: float
    live_s: float  # as ours_s, while windows come in
    past_s: float  # as ours_s, of a question that brings windows back
    window_p95_s: float
    resident: int
    tokens: int


@dataclass
class Run:
    """One case: the points of one stream, and the parts to measure more with."""

    case: str
    bundle: Bundle
    percepts: list[Percept]
    windows_a_minute: int
    repeats: int
    clock: Callable[[], float] = time.perf_counter
    points: list[Point] = field(default_factory=list)

    def at(self, minute: float) -> Point | None:
        return next((p for p in self.points if p.minute == minute), None)

    def row(self, measure: str, ours: float, baseline: float, target: float | None, unit: str) -> Row:
        return Row(measure, ours, baseline, ours / baseline, target, unit, self.case, at_most=True)


def first_tokens(run: Run) -> list[Row]:
    """Time to first token against prefilling again, idle and while windows come in, and against itself."""
    first, early, late = run.at(1), run.at(10), run.at(60)
    rows = [run.row("ttft_10min_vs_rebuild", early.ours_s, early.rebuild_s, 0.05, "s"),
            run.row("ttft_10min_vs_last4", early.ours_s, early.last4_s, 1.2, "s"),
            run.row("ttft_10min_vs_rebuild_live", early.live_s, early.rebuild_s, None, "s"),
            run.row("ttft_10min_vs_rebuild_past", early.past_s, early.rebuild_s, None, "s")]
    if late is not None:
        rows += [run.row("ttft_60min_vs_1min", late.ours_s, first.ours_s, 1.10, "s"),
                 run.row("ttft_60min_vs_1min_live", late.live_s, first.live_s, None, "s")]
    return rows


def endurance(run: Run) -> list[Row]:
    """Memory and window latency at the end of the stream against minute 10. `h8` is a whole run's: hour 8 of `tiny`, hour 1
    of `large`."""
    early, late = run.at(10), run.points[-1]
    if late is early:
        return []
    name = "h8" if late.minute == 60 * HOURS[run.case] else f"min{late.minute:g}"
    return [run.row(f"memory_{name}_vs_min10", late.resident / 2**20, early.resident / 2**20, 1.05, "MiB"),
            run.row(f"window_p95_{name}_vs_min10", late.window_p95_s, early.window_p95_s, 1.10, "s")]


def fork_memory(run: Run) -> list[Row]:
    """What forks of one long prefix hold, against a copy of the prefix each."""
    mind, length = run.bundle.mind, PREFIX if run.repeats > 3 else 256
    trunk = Trunk(mind.model, length)
    windows = torch.cat([mind.entry(Span.of(p), Places()).embeds for p in run.percepts])
    trunk.extend(windows.repeat(-(-length // len(windows)), 1)[:length])
    ids = question_ids(mind.tokenizer, QUESTION, mind.spec.prompt.max_question_tokens)
    forks = Forks(trunk, [mind._embeds(ids)] * FORKS, room=mind.spec.prompt.max_answer_tokens)
    return [run.row("fork32_memory_vs_copy", forks.nbytes / 2**20, FORKS * trunk.nbytes / 2**20, 0.1, "MiB")]


def gate_streams(run: Run) -> list[Row]:
    """Streams that one core sees in real time, with the gate and without, in static scenes: encoding and language model,
    in CPU seconds; and how many answers about such scenes are right. The encoders are those of the default bundle."""
    if run.case != "tiny":
        return []
    stream = LongStream("val", 21, 180 if run.repeats > 3 else 8, static=True)
    rates = {}
    for gate in (False, True):
        took, _ = watched(run.bundle, stream, gate=gate)
        rates[gate] = run.bundle.spec.window_s / (took["encode_s"] + took["language_s"])
    accuracy = gate_accuracy(run.bundle, 20) if run.repeats > 3 else gate_accuracy(run.bundle, 1, seconds=8)
    return [Row("gate_streams", rates[True], rates[False], rates[True] / rates[False], 3.0, "streams", run.case),
            replace(accuracy, case=run.case)]


MEASURES: list[Callable[[Run], list[Row]]] = [first_tokens, endurance, fork_memory, gate_streams]


# --- the stream ------------------------------------------------------------------------------------------------------

class Stream:
    """A session that is fed stored percepts: window k is percept k of the cycle, moved to its time."""

    def __init__(self, run: Run, session: Session) -> None:
        self.run, self.session = run, session
        self.took_s: list[float] = []  # of each window, from its arrival until the mind has seen it

    def watch(self, count: int, together: int = 1) -> None:
        """The next windows come in, and reach the mind so many together; only single ones are timed."""
        for index in range(self.session.windows, end := self.session.windows + count):
            percept, hop_s = self.run.percepts[index % len(self.run.percepts)], self.session.spec.window_s
            t0_s = index * hop_s
            tokens = tuple(replace(t, session=self.session.id, window=index, t0_s=t0_s, t1_s=t0_s + hop_s)
                           for t in percept.tokens)
            moved = replace(percept, session=self.session.id, index=index, t0_s=t0_s, t1_s=t0_s + hop_s, tokens=tokens)
            began_s = self.run.clock()
            with self.session._turns.taken():
                self.session.log.append_window(moved)
                if (index + 1) % together == 0 or index + 1 == end:
                    self.session._state.caught_up()
            if together == 1:
                self.took_s.append(self.run.clock() - began_s)

    def first_token_s(self, question: str = QUESTION, *, whole: bool = False) -> float:
        """whole: the answer goes on to its end; else it is cancelled, and the next question finds the mind free."""
        began_s = self.run.clock()
        pieces = self.session.stream(question)
        next(pieces)
        took_s = self.run.clock() - began_s
        if not whole:
            pieces.cancel()
        for _ in pieces:
            pass
        return took_s

    @contextmanager
    def ingest(self):
        """Windows come in meanwhile, several times as fast as real time."""
        stop = threading.Event()

        def feed() -> None:
            while not stop.wait(self.session.spec.window_s / 4):
                self.watch(1)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def prefill_s(self, embeds: torch.Tensor) -> float:
        """The first token of a plain model that is given everything again."""
        mind = self.run.bundle.mind
        began_s = self.run.clock()
        with torch.inference_mode():
            mind.model(inputs_embeds=embeds[None], use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
        return self.run.clock() - began_s

    def point(self, minute: float) -> Point:
        """Ask, and prefill again, in turns; then let windows come in for one cycle of compactions."""
        mind, memory = self.run.bundle.mind, self.session._state.memory
        question = mind._embeds(question_ids(mind.tokenizer, QUESTION, mind.spec.prompt.max_question_tokens))
        everything = torch.cat([mind.laid_out(memory.entries).embeds, question])
        last4 = torch.cat([mind.laid_out(memory.entries[-4:]).embeds, question])
        ours, again, few, live, past = [], [], [], [], []
        for turn in range(self.run.repeats):
            ours.append(self.first_token_s())
            if minute != COMPARED and turn >= FEW:
                continue
            again.append(self.prefill_s(everything))
            few.append(self.prefill_s(last4))
            past.append(self.first_token_s(PAST))
        with self.ingest():
            for _ in range(self.run.repeats):
                live.append(self.first_token_s(whole=True))
        resident, self.took_s = [], []
        for _ in range(30 if self.run.repeats > 3 else 3):
            self.watch(5)
            resident.append(resident_bytes())
        return Point(minute, *map(_median, (ours, again, few, live, past)), float(np.percentile(self.took_s, 95)),
                     max(resident), len(everything))


def play(run: Run, hours: float, folder: Path) -> None:
    """Replay the stream, stopping at `MINUTES` and at its end."""
    with new_session(run.bundle, folder / f"{run.case}.db") as session:
        stream = Stream(run, session)
        stream.watch(8)
        stream.first_token_s()  # what is made on first use is made
        for minute in sorted({*(m for m in MINUTES[run.case] if m < 60 * hours), 60 * hours}):
            stream.watch(max(0, round(minute * run.windows_a_minute) - session.windows), together=BATCH)
            run.points.append(stream.point(minute))
            print(f"{run.case}: minute {minute:g}, first token {run.points[-1].ours_s * 1e3:.1f} ms, window p95 "
                  f"{run.points[-1].window_p95_s * 1e3:.1f} ms, {run.points[-1].resident / 2**20:.0f} MiB", flush=True)


def resident_bytes() -> int:
    """Of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


# --- cases -----------------------------------------------------------------------------------------------------------

def stored_percepts(bundle: Bundle, seconds: int, scenes: int = 3) -> list[Percept]:
    """What perception makes of some playground scenes, one after the other."""
    found: list[Percept] = []
    for number in range(scenes):
        windows = scene_windows(make_scene("val", 7, number, seconds=seconds / scenes), bundle.spec)
        found += [Percept.of("", w, t) for w, t in zip(windows, bundle.perception.encode("", windows), strict=True)]
    return found


def large(bundle: Bundle, percepts: list[Percept]) -> tuple[Bundle, list[Percept]]:
    """The same bundle and percepts with a larger language model of random weights. It says only what is text at once:
    steps and halves of letters, of which random weights write many, no caller sees, and he would wait for the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = CausalLM(CausalLM.Config(vocab=bundle.tokenizer.vocab, **LARGE)).eval().requires_grad_(False)
        lm.model.lm_head.register_forward_hook(partial(_only_text, mute(bundle.tokenizer)))
        widen = torch.randn(percepts[0].tokens[0].embeds.shape[1], LARGE["width"]).numpy() * 0.02
    made = replace(bundle)
    made.__dict__["mind"] = Mind(bundle.spec, lm, bundle.layout, Calibration())
    return made, [replace(p, tokens=tuple(replace(t, embeds=t.embeds @ widen) for t in p.tokens)) for p in percepts]


def mute(tokenizer: TextTokenizer) -> torch.Tensor:
    """Ids of what is no text by itself."""
    texts = map(tokenizer.decode, ([i] for i in range(tokenizer.vocab)))
    return torch.tensor([i for i, text in enumerate(texts) if not text or "\ufffd" in text])


def _only_text(ids: torch.Tensor, _: torch.nn.Module, __: tuple, logits: torch.Tensor) -> torch.Tensor:
    return logits.index_fill(-1, ids, -torch.inf)


def bench(case: str, folder: Path, hours: float | None, quick: bool, clock: Callable[[], float]) -> Run:
    """Replay a case's stream; the measures read what it found."""
    bundle = load_bundle("tiny")
    percepts = stored_percepts(bundle, 6 if quick else 180)
    if case == "large":
        bundle, percepts = large(bundle, percepts)
    run = Run(case, bundle, percepts, 6 if quick else round(60 / bundle.spec.window_s), 1 if quick else 9, clock)
    play(run, hours or (0.4 if quick else HOURS[case]), folder)
    return run


def draw(runs: Sequence[Run], path: Path) -> None:
    """Latency and memory against stream length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(runs), figsize=(6 * len(runs), 7), squeeze=False)
    for run, (top, bottom) in zip(runs, axes.T):
        minutes = [p.minute for p in run.points]
        for label, key, style in (("ours", "ours_s", "o-"), ("ours, while windows come in", "live_s", "o--"),
                                  ("ours, with windows brought back", "past_s", "o:"),
                                  ("prefill the memory again", "rebuild_s", "s-"),
                                  ("prefill the last 4 windows", "last4_s", "^-"),
                                  ("ours: a window, p95", "window_p95_s", ".:")):
            top.plot(minutes, [getattr(p, key) * 1e3 for p in run.points], style, label=label)
        top.set(title=f"{run.case}: time to first token", ylabel="ms", xscale="log", yscale="log")
        bottom.plot(minutes, [p.resident / 2**20 for p in run.points], "o-", label="ours, the whole process")
        trunk = Trunk(run.bundle.mind.model, 1)
        trunk.extend(run.bundle.mind._embeds([0]))
        tokens = run.points[0].tokens / run.points[0].minute  # a minute, while nothing is merged
        grows = [run.points[0].resident / 2**20 + tokens * m * trunk.nbytes / 2**20 for m in minutes]
        bottom.plot(minutes, grows, "s--", label="a cache of everything (computed)")
        bottom.set(title="memory", ylabel="MiB", xlabel="minutes of stream", xscale="log", yscale="log")
        for axis in (top, bottom):
            axis.legend(fontsize=8)
            axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"written: {path}")


def main(argv: Sequence[str] | None = None) -> list[Row]:
    made: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    made.add_argument("--case", action="append", choices=sorted(HOURS), help="all, unless given")
    made.add_argument("--hours", type=float, help="of stream, at least 10 minutes")
    made.add_argument("--cpu-time", action="store_true", help="count CPU seconds, where other work keeps the machine busy")
    made.add_argument("--quick", action="store_true", help="a stream of a few minutes, to see that it runs")
    made.add_argument("--picture", metavar="FILE", type=Path, help="draw latency and memory against stream length")
    options = made.parse_args(argv)
    if options.hours is not None and options.hours < 1 / 6:
        made.error(f"--hours {options.hours:g} is less than 10 minutes, 0.17")
    clock = time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        runs = [bench(case, Path(folder), options.hours, options.quick, clock)
                for case in options.case or ("tiny", "large")]
        rows = [row for run in runs for measure in MEASURES for row in measure(run)]
    report("streaming: ratios are ours / baseline", rows, options.json)
    if options.picture:
        draw(runs, options.picture)
    return rows


if __name__ == "__main__":
    main()
