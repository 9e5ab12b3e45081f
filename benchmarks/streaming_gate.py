"""What the change gate and standing rules cost and how well they do, on playground streams.

    python -m benchmarks.streaming_gate [--minutes 5] [--rules 100] [--scenes 20] [--json FILE]

CPU seconds of this process, on one thread: `gate_streams` is encode + language model per window of a static stream,
ungated / gated; `gate_accuracy` is the share of right answers about static scenes, gated / ungated; `rules_cost` is a
window with many rules beside a window with one; `rules` are a stream's rule figures, `rules_unsifted` the same with every
rule put to the mind at every window.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from anymodal.bundle import Bundle, load_bundle  # noqa: E402
from anymodal.playground.questions import make_questions  # noqa: E402
from anymodal.playground.rule_questions import Condition, asked  # noqa: E402
from anymodal.playground.streams import LongStream  # noqa: E402
from anymodal.playground.world import COLORS, DEVICE_MOTIONS, SHAPES, SOUNDS, VISUAL_EVENTS  # noqa: E402
from anymodal.session.local import new_session  # noqa: E402
from anymodal.session.rules import Rules  # noqa: E402
from anymodal.stages.items import Percept  # noqa: E402
from anymodal.stages.perceive import Perceive  # noqa: E402
from anymodal.training.asking import answer_batch  # noqa: E402
from anymodal.training.rule_scoring import RuleScore, score_rule  # noqa: E402
from anymodal.training.scoring import is_right  # noqa: E402
from benchmarks.report import Row  # noqa: E402

CONDITIONS = [*(Condition("sound", s) for s in SOUNDS), *(Condition("device", m) for m in DEVICE_MOTIONS),
              *(Condition("event", e, c, s) for e in VISUAL_EVENTS for c in COLORS for s in SHAPES)]


def watched(bundle: Bundle, stream: LongStream, *, gate: bool) -> tuple[dict[str, float], list[Percept]]:
    """CPU seconds a window of encoding and of the language model, and how much was skipped."""
    stage, state = Perceive(bundle.perception, gate=gate), bundle.mind.open()
    windows = list(stream.windows(bundle.spec))
    began_s = time.process_time()
    percepts = [p for w in windows for p in stage.push(("s", w))] + stage.close()
    encode_s = time.process_time() - began_s
    for percept in percepts:
        bundle.mind.extend(state, percept)
    both_s = time.process_time() - began_s
    skipped = stage.skipped
    return {"encode_s": encode_s / len(windows), "language_s": (both_s - encode_s) / len(windows),
            "streams_skipped": skipped.streams_skipped / max(1, skipped.streams),
            "frames_skipped": skipped.frames_skipped / max(1, skipped.frames)}, percepts


def gate_accuracy(bundle: Bundle, scenes: int, seconds: int = 24) -> Row:
    """Right answers about so many static scenes, a question of every type each, in per cent: with the gate and without."""
    right, asked = {True: 0, False: 0}, 0
    for number in range(scenes):
        stream = LongStream("val", 41 + number, seconds, static=True)
        questions = make_questions(stream.chapter(0), random.Random(number))
        asked += len(questions)
        for gate in right:
            stage, state = Perceive(bundle.perception, gate=gate), bundle.mind.open()
            percepts = [p for w in stream.windows(bundle.spec) for p in stage.push(("s", w))] + stage.close()
            bundle.mind.extend_all(state, percepts)
            said = answer_batch(bundle.mind, state, [q.question for q in questions])
            right[gate] += sum(is_right(q, answer.text) for q, answer in zip(questions, said, strict=True))
    ours, baseline = (100 * right[gate] / asked for gate in (True, False))
    return Row("gate_accuracy", ours, baseline, ours / baseline if baseline else float("inf"), 0.99, "% right")


def ruled(bundle: Bundle, percepts: Sequence[Percept], texts: Sequence[str], *, first: int = 0,
          sifted: bool = True) -> tuple[float, dict]:
    """CPU seconds of judging each window from `first` on by these rules, and the windows in which each told something."""
    took_s = 0.0
    with new_session(bundle, None) as session:
        rules = session.rules if sifted else Rules(session.log)
        names = [rules.add(text).name for text in texts]
        for percept in percepts:
            tokens = tuple(replace(t, session=session.id) for t in percept.tokens)
            session.log.append_window(replace(percept, session=session.id, tokens=tokens))
            if percept.index < first:
                continue
            state, began_s = session._state.caught_up(), time.process_time()
            rules.watch(bundle.mind, state, percept)
            took_s += time.process_time() - began_s
        told = {name: [round(e.t_s / bundle.spec.window_s) for e in session.events() if e.rule == name] for name in names}
    return took_s / (len(percepts) - first), told


def rules_cost(bundle: Bundle, percepts: Sequence[Percept], plain: dict[str, float], count: int) -> dict[str, float]:
    """CPU seconds of a window with one rule, the mean of five, and with `count`; and the latter with every rule put to the
    mind at every window."""
    dice = random.Random(0)
    texts = [asked(c, dice) for c in dice.sample(CONDITIONS, count)]
    window_s = plain["encode_s"] + plain["language_s"]
    one_s = window_s + sum(ruled(bundle, percepts, [text])[0] for text in texts[:5]) / 5
    many_s = window_s + ruled(bundle, percepts, texts)[0]
    every_s = window_s + ruled(bundle, percepts, texts, first=len(percepts) - 30, sifted=False)[0]
    return {"one_s": one_s, "many_s": many_s, "every_s": every_s, "rules": count, "ratio": many_s / one_s}


def rule_figures(bundle: Bundle, percepts: Sequence[Percept], stream: LongStream, *,
                 sifted: bool = True) -> dict[str, float | int | None]:
    """A rule for each sound and motion, and for each event of the stream's own objects."""
    dice = random.Random(1)
    own = {Condition("event", e.kind, t.color, t.shape) for n in range(stream.chapters) for t in stream.chapter(n).things
           for e in t.events}
    conditions = [c for c in CONDITIONS if c.family != "event"] + sorted(own, key=repr)[:20]
    _, told = ruled(bundle, percepts, [asked(c, dice) for c in conditions], sifted=sifted)
    total = RuleScore()
    for condition, windows in zip(conditions, told.values(), strict=True):
        total += score_rule(stream.truth(condition), windows, window_s=bundle.spec.window_s)
    return total.to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=20, help="that questions are asked about, with the gate and without")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle("tiny")
    static = LongStream("val", 21, options.minutes * 60, static=True)
    watched(bundle, LongStream("val", 22, 4, static=True), gate=False)  # what is only slow the first time
    plain, _ = watched(bundle, static, gate=False)
    gated, _ = watched(bundle, static, gate=True)
    busy, percepts = watched(bundle, LongStream("val", 23, options.minutes * 60), gate=False)
    rows = {"ungated": plain, "gated": gated, "busy": busy,
            "gate_streams": (plain["encode_s"] + plain["language_s"]) / (gated["encode_s"] + gated["language_s"]),
            "gate_accuracy": gate_accuracy(bundle, options.scenes).to_json(),
            "rules_cost": rules_cost(bundle, percepts, busy, options.rules),
            "rules": rule_figures(bundle, percepts, LongStream("val", 23, options.minutes * 60)),
            "rules_unsifted": rule_figures(bundle, percepts, LongStream("val", 23, options.minutes * 60), sifted=False)}
    print(json.dumps(rows, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
