"""A question about what the memory no longer has, asked of the windows that show it, as a clip of its own.

Windows brought back beside hours of memory are hard to answer from for a small language model that was trained on clips of
seconds. Alone, behind one another on a clock that begins at 0, with the newest windows last ("where is it now?"), they are
such a clip. Times in what it says are put back onto the session's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anymodal.language.tokenizer import clock, moment_in
from anymodal.memory import Span, reclocked, since
from anymodal.stages.items import Percept
from anymodal.types import Evidence

NEWEST = 2  # windows of now
_TIMES = re.compile(r"\b(?:(\d+(?:\.\d)?) (and|to) )?(\d+(?:\.\d)?) s(?:econds?)?\b")


def chosen(happening: Sequence[float], most: int) -> list[int]:
    """The places of at most `most` of the windows that show a thing: the last, the first two, those in which most happens
    to it, and then the others, the first before the rest."""
    count = len(happening)
    busiest = sorted(range(count), key=lambda k: -happening[k])[: most // 3]
    wanted = [count - 1, 0, 1, *busiest, *range(count)]
    return sorted([k for k in dict.fromkeys(wanted) if 0 <= k < count][:most])


@dataclass(frozen=True, slots=True)
class Past:
    """entries: windows on their own clock. begins_s: when each begins on the session's, in order. said: what its tokens
    say, read with the windows beside it there, (N, V) of each; empty where nothing is read."""

    entries: list[Span]
    begins_s: list[float]
    window_s: float
    said: list[np.ndarray]

    @classmethod
    def of(cls, percepts: Sequence[Percept], seen: Sequence[Span], window_s: float,
           said: Mapping[int, np.ndarray] | None = None) -> Past:
        """Of windows that are brought back, in order of time, and of the newest of those that a question sees. said: of
        each window, by its number."""
        newest, _ = since(seen, seen[-1].last - NEWEST + 1 if seen else 0, window_s)
        begins_s = [seen[-1].t1_s - n * window_s for n in range(len(newest), 0, -1)] if newest else []
        later = [k for k, begin_s in enumerate(begins_s) if not percepts or begin_s > percepts[-1].t0_s + 1e-6]
        begins_s = [p.t0_s for p in percepts] + [begins_s[k] for k in later]
        return cls(reclocked([*map(Span.of, percepts), *(newest[k] for k in later)], window_s), begins_s, window_s,
                   [said[round(begin_s / window_s)] for begin_s in begins_s] if said else [])

    def asked(self, question: str) -> str:
        """A question, with its moment on this clock: "at 12:35" as "at 2 s"."""
        if (found := moment_in(question)) is None:
            return question
        t_s, place = found
        there = [k for k, begin_s in enumerate(self.begins_s) if begin_s <= t_s + 1e-6 < begin_s + self.window_s]
        if not there:
            return question
        return f"{question[: place.start]}{clock(there[0] * self.window_s)} s{question[place.stop :]}"

    def text(self, said: str) -> str:
        """What was said, with times of the session: "at 4 s" as "at 12:35"."""
        def moved(found: re.Match) -> str:
            start = _said(self._begin_s(float(found[1]))) + f" {found[2]} " if found[1] else ""
            return start + _said(self._begin_s(float(found[3]), closing=bool(found[1])))

        return _TIMES.sub(moved, said)

    def evidence(self, spans: Sequence[Evidence]) -> Iterator[Evidence]:
        """Spans on the session's clock; one that reaches over windows that are not behind one another is several."""
        for span in spans:
            first, last = (int(t_s / self.window_s + 1e-6) for t_s in (span.start_s, span.end_s))
            run: list[float] = []
            for begin_s in self.begins_s[first:last]:
                if run and begin_s > run[1] + 1e-6:
                    yield Evidence(*run, span.modality)
                    run = []
                run = [run[0] if run else begin_s, begin_s + self.window_s]
            if run:
                yield Evidence(*run, span.modality)

    def _begin_s(self, t_s: float, closing: bool = False) -> float:
        k = int(t_s / self.window_s + 1e-6)
        if closing and 0 < k <= len(self.begins_s):
            return self.begins_s[k - 1] + self.window_s
        return self.begins_s[min(k, len(self.begins_s) - 1)]


def _said(t_s: float) -> str:
    return f"{clock(t_s)} s" if t_s < 60 else clock(t_s)
