"""Training clips as parts of a long stream: the same questions, hours after its beginning.

A short clip teaches the first seconds of a clock only; shifted, its windows, questions, answers and evidence name any time.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from anymodal.language.tokenizer import clock
from anymodal.playground.facts import Question

_SECOND = re.compile(r"\b(\d{1,2})\s*(?:s|secs?|seconds?)\b", re.IGNORECASE)
_PAIR = re.compile(r"\b(\d{1,2}) ?(and|to|-) ?(\d{1,2}) s\b")


def draw_start(dice: random.Random, length: int) -> int:
    """The second of a long stream at which a clip of `length` begins: within the first minute, hour or ten hours."""
    return dice.choice((dice.randrange(1, 60), dice.randrange(1, 60 - length), dice.randrange(60, 3600 - length),
                        dice.randrange(3600, 36_000)))


def delayed(row: Question, start: int, dice: random.Random) -> Question:
    """A question as of a clip that begins `start` seconds later. One in five asks "at 3725 s", others "at 1:02:05"; answers
    say the latter."""
    plain = dice.random() < 0.2

    def told(text: str, plain: bool = False) -> str:
        text = _PAIR.sub(lambda m: f"{clock(start + int(m[1]))} {m[2]} {clock(start + int(m[3]))}", text)
        return _SECOND.sub(lambda m: _said(start + int(m[1]), plain), text)

    answer = told(row.answer)
    if row.answer.isdigit() and row.type.endswith("when"):
        answer = clock(start + int(row.answer))
    evidence = tuple(replace(e, start_s=e.start_s + start, end_s=e.end_s + start) for e in row.evidence)
    return replace(row, question=told(row.question, plain), answer=answer, evidence=evidence)


def _said(t_s: int, plain: bool) -> str:
    return f"{t_s} s" if t_s < 60 or plain else clock(t_s)
