"""Training clips as parts of a long stream: the same questions, hours after its beginning.

A short clip teaches the first seconds of a clock only; shifted, its windows, questions, answers and evidence name any time.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from anymodal.language.tokenizer import clock
from anymodal.playground.facts import Question

_TIME = re.compile(r"\b(?:(\d{1,2}) ?(and|to|-) ?)?(\d{1,2})\s*(?:s|secs?|seconds?)\b", re.IGNORECASE)


def draw_times(dice: random.Random, length: int, clips: int) -> list[list[int]]:
    """For each clip the seconds of a long stream at which its windows are: within the first minute (half of the times), the
    first hour, or ten hours, alike for all clips, so that their labels have as many tokens.

    Of five clips three have gaps, as what a memory holds has: with none, a time is learned as a place in the list.
    """
    low, high = dice.choice(((0, 60), (0, 60), (60, 3600), (3600, 36_000)))
    found = []
    for _ in range(clips):
        stretch = length if dice.random() < 0.4 else dice.choice((2 * length, 60, 600))
        stretch = min(max(stretch, length), high - low)
        start = dice.randrange(low, high - stretch + 1)
        found.append(sorted(dice.sample(range(start, start + stretch), length)))
    return found


def delayed(row: Question, times: Sequence[int], dice: random.Random) -> Question:
    """A question about a clip whose windows are at these seconds. One in five asks "at 3725 s", others "at 1:02:05";
    answers say the latter."""
    plain = dice.random() < 0.2

    def begin(second: int) -> int:
        return times[second] if second < len(times) else times[-1] + 1 + second - len(times)

    def end(second: int) -> int:
        return times[second - 1] + 1 if 0 < second <= len(times) else begin(second)

    def told(text: str, plain: bool = False) -> str:
        return _TIME.sub(lambda m: f"{clock(begin(int(m[1])))} {m[2]} {_said(end(int(m[3])), False)}" if m[1] else
                         _said(begin(int(m[3])), plain), text)

    answer = told(row.answer)
    if row.answer.isdigit() and row.type.endswith("when"):
        answer = clock(begin(int(row.answer)))
    evidence = tuple(replace(e, start_s=float(begin(int(e.start_s))), end_s=float(end(int(e.end_s)))) for e in row.evidence)
    steps = tuple(s if isinstance(s, str) else begin(s) if isinstance(s, int) else tuple(map(begin, s)) for s in row.steps)
    return replace(row, question=told(row.question, plain), answer=answer, evidence=evidence, steps=steps)


def _said(t_s: int, plain: bool) -> str:
    return f"{t_s} s" if t_s < 60 or plain else clock(t_s)
