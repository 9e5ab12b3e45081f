"""What is still known of a long stream: questions about what was 10 to 30 minutes ago, and about the last 30 seconds.

    python -m benchmarks.recall [--streams 3] [--minutes 30] [--bundle tiny] [--json FILE]

Playground streams of a fixed camera, a new scene every minute. At each minute from the eleventh on, questions are asked
about things that no other minute showed ("where was the purple star at first?"), some of them of the last 30 s and some of
10 to 30 minutes before. `last4`: the same model with the last four windows and nothing else. Accuracy is exact match, the
mean over kinds of questions, so that both ages weigh kinds alike.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.progress import track  # noqa: E402

from anymodal.bundle import Bundle, load_bundle  # noqa: E402
from anymodal.playground.facts import Fact, Question, Truth  # noqa: E402
from anymodal.playground.facts_seen import GENERATORS  # noqa: E402
from anymodal.playground.streams import LongStream  # noqa: E402
from anymodal.playground.wordings import ask  # noqa: E402
from anymodal.playground.world import Thing  # noqa: E402
from anymodal.session.local import new_session  # noqa: E402
from anymodal.session.session import Session  # noqa: E402
from anymodal.stages.items import Percept  # noqa: E402
from anymodal.stages.perceive import Perceive  # noqa: E402
from anymodal.training.scoring import is_right  # noqa: E402
from anymodal.types import Answer, Window  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

KINDS = ("size", "motion", "place_first", "event_kind")  # asked of one thing, answered without a time
RECENT_S, OLD_S = 30.0, 600.0
MOST = {"recent": 6, "old": 3}  # questions of an age at a minute


@dataclass(slots=True)
class Named(Truth):
    """A truth that speaks of things by colour and shape, and only of those in `once`."""

    once: frozenset[str] = field(default_factory=frozenset)

    def refer(self, thing: Thing, *, hide: str = "") -> str | None:
        name = f"{thing.color} {thing.shape}"
        return name if name in self.once and hide in ("", "size") and not thing.recolor else None


def about(stream: LongStream, chapter: int, once: frozenset[str], dice: random.Random) -> Iterator[tuple[Fact, float]]:
    """Facts about the things of one chapter that are among `once`, and when the evidence of each ends."""
    scene, begin_s = stream.chapter(chapter), chapter * stream.chapter_s
    truth = Named(scene, dice, frozenset({"video"}), once=once)
    for make in GENERATORS:
        for fact in make(truth):
            if fact.kind in KINDS and fact.slots["obj"] in once:
                yield fact, begin_s + fact.evidence[0].end_s


def asked_at(stream: LongStream, minute: int, dice: random.Random) -> dict[str, list[Question]]:
    """Questions of both ages, as of the end of a minute; nothing that they name was seen in another minute."""
    shown = Counter(name for n in range(minute) for name in
                    {f"{color} {shape}" for t in stream.chapter(n).things for color, shape in t.names()})
    once, now_s = frozenset(n for n, count in shown.items() if count == 1), minute * stream.chapter_s
    found: dict[str, list[Fact]] = {"recent": [], "old": []}
    for chapter in range(minute):
        for fact, end_s in about(stream, chapter, once, dice):
            if end_s > now_s - RECENT_S:
                found["recent"].append(fact)
            elif now_s - 3 * OLD_S <= end_s <= now_s - OLD_S:
                found["old"].append(fact)
    return {age: [Question(f.kind, ask(dice, f.kind, f.slots, noise=0.0), f.answer, f.accept[:4], f.evidence)
                  for f in dice.sample(facts, min(MOST[age], len(facts)))] for age, facts in found.items()}


def of_last(bundle: Bundle, windows: Sequence[Window], question: str) -> str:
    """What the model answers that has seen these windows alone."""
    stage, state = Perceive(bundle.perception), bundle.mind.open()
    for percept in [p for w in windows for p in stage.push(("s", w))] + stage.close():
        bundle.mind.extend(state, percept)
    *_, answer = bundle.mind.answer(state, question, at_s=windows[-1].t1_s)
    assert isinstance(answer, Answer)
    return answer.text


def feed(session: Session, percepts: Sequence[Percept]) -> None:
    for percept in percepts:
        tokens = tuple(replace(t, session=session.id) for t in percept.tokens)
        session.log.append_window(replace(percept, session=session.id, tokens=tokens))


Scores = dict[tuple[str, str, str], list[float]]  # by (who, age, kind): 1 for each right answer, 0 for each wrong one


def scores(bundle: Bundle, stream: LongStream) -> Scores:
    """Both kinds of memory, asked at every minute of one stream."""
    found: Scores = {}
    hop_s, stage = bundle.spec.window_s, Perceive(bundle.perception, gate=True)
    each = round(stream.chapter_s / hop_s)
    with new_session(bundle, None) as session:
        for minute in track(range(1, stream.chapters + 1), f"stream {stream.seed}"):
            windows = list(stream.windows(bundle.spec, (minute - 1) * each, minute * each - 1))
            feed(session, [p for w in windows for p in stage.push(("s", w))] + stage.close())
            if minute * stream.chapter_s <= OLD_S:
                continue
            for age, questions in asked_at(stream, minute, random.Random(minute)).items():
                for question in questions:
                    said = {"ours": session.ask(question.question).text,
                            "last4": of_last(bundle, windows[-4:], question.question)}
                    for who, text in said.items():
                        found.setdefault((who, age, question.type), []).append(float(is_right(question, text)))
    return found


def accuracy(found: Scores, who: str, age: str) -> float:
    """The mean over kinds; every kind has the same weight."""
    return float(np.mean([np.mean(found[who, age, kind]) for kind in KINDS if (who, age, kind) in found]))


def rows(found: Scores) -> list[Row]:
    share = {(who, age): accuracy(found, who, age) for who in ("ours", "last4") for age in ("recent", "old")}

    def row(measure: str, ours: float, baseline: float, target: float) -> Row:
        return Row(measure, 100 * ours, 100 * baseline, ours / baseline if baseline else float("inf"), target, "% right")

    return [row("old_vs_recent", share["ours", "old"], share["ours", "recent"], 0.9),
            row("recent_vs_last4", share["ours", "recent"], share["last4", "recent"], 0.99),
            row("backward_vs_last4", share["ours", "old"], share["last4", "old"], 1.10)]


def main() -> None:
    options = parser(__doc__.split("\n")[0])
    options.add_argument("--streams", type=int, default=3, help="how many streams")
    options.add_argument("--minutes", type=int, default=30, help="length of each")
    options.add_argument("--bundle", default="tiny")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    bundle, found = load_bundle(chosen.bundle), {}
    for seed in range(31, 31 + chosen.streams):
        for key, values in scores(bundle, LongStream("test", seed, 60 * chosen.minutes, static=True)).items():
            found.setdefault(key, []).extend(values)
    for (who, age, kind), values in sorted(found.items()):
        print(f"{who:6} {age:7} {kind:12} {np.mean(values):4.0%} of {len(values)}")
    report("what is still known of a long stream", rows(found), chosen.json)


if __name__ == "__main__":
    main()
