"""A question about what the memory no longer has, asked of the windows that show it, as a clip of its own.

Windows brought back beside hours of memory are hard to answer from for a small language model that was trained on clips of
seconds. Alone, behind one another on a clock that begins at 0, with the newest windows last ("where is it now?"), they are
such a clip. Times in what it says are put back onto the session's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anymodal.language.tokenizer import clock, with_times
from anymodal.memory import Span, reclocked, since
from anymodal.stages.items import Percept
from anymodal.types import Evidence

NEWEST = 2  # windows of now
_TIMES = re.compile(r"\b(?:(\d+) (and|to) )?(\d+) s(?:econds?)?\b")


def chosen(percepts: Sequence[Percept], most: int, happening: Sequence[float]) -> list[Percept]:
    """At most `most` of the windows that show a thing: the last, those in which most happens to it, and then the first."""
    wanted = [len(percepts) - 1, 0, 1, *(k for k in sorted(range(len(percepts)), key=lambda k: -happening[k])[: most // 3]),
              *range(len(percepts))]
    few = [k for k in dict.fromkeys(wanted) if 0 <= k < len(percepts)][:most]
    return [percepts[k] for k in sorted(few)]


@dataclass(frozen=True, slots=True)
class Past:
    """entries: windows on their own clock. begins_s: when each begins on the session's."""

    entries: list[Span]
    begins_s: list[float]
    window_s: float

    @classmethod
    def of(cls, percepts: Sequence[Percept], seen: Sequence[Span], window_s: float) -> Past:
        """Of windows that are brought back, and of the newest of those that a question sees."""
        newest, _ = since(seen, seen[-1].last - NEWEST + 1 if seen else 0, window_s)
        last_s = seen[-1].t1_s if seen else 0.0
        begins_s = [p.t0_s for p in percepts] + [last_s - n * window_s for n in range(len(newest), 0, -1)]
        return cls(reclocked([*map(Span.of, percepts), *newest], window_s), begins_s, window_s)

    def asked(self, question: str) -> str:
        """A question, with times of this clock: "at 12:35" as "at 2 s"."""
        def moved(t_s: float) -> str | None:
            there = [k for k, begin_s in enumerate(self.begins_s) if begin_s <= t_s + 1e-6 < begin_s + self.window_s]
            return f"{there[0]} s" if there else None

        return with_times(question, moved)

    def text(self, said: str) -> str:
        """What was said, with times of the session: "at 4 s" as "at 12:35"."""
        def moved(found: re.Match) -> str:
            start, end = found[1] and self._begin_s(int(found[1])), self._begin_s(int(found[3]), closing=bool(found[1]))
            times = [_said(t) for t in (start, end) if t is not None]
            return f" {found[2]} ".join(times)

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

    def _begin_s(self, t_s: int, closing: bool = False) -> float:
        k = int(t_s / self.window_s + 1e-6)
        if closing and 0 < k <= len(self.begins_s):
            return self.begins_s[k - 1] + self.window_s
        return self.begins_s[min(k, len(self.begins_s) - 1)]


def _said(t_s: float) -> str:
    return f"{clock(t_s)} s" if t_s < 60 else clock(t_s)
